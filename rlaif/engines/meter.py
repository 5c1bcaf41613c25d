"""What the engines of a process have used, all together: the loop's books stand on it.

    load_engine → metered(engine) → used()

An engine that is closed has still been used.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rlaif.engines.protocol import Engine

_ENGINES: ContextVar[list[tuple[Engine, float]] | None] = ContextVar("engines", default=None)


@dataclass(frozen=True, slots=True)
class Used:
    """What engines have used.

    Attributes:
        requests: to them.
        computed_tokens: run through a model.
        generated_tokens: sampled.
        money: by the prices of a server.
    """

    requests: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    money: float = 0.0


def start() -> None:
    """From now on, engines that are loaded in this context are counted."""
    _ENGINES.set([])


def metered(engine: Engine) -> Engine:
    """The engine itself, counted where something asked for it."""
    engines = _ENGINES.get()
    if engines is not None:
        # What a server was paid before is in no line of ours twice.
        engines.append((engine, _money(engine)))
    return engine


def used() -> Used:
    """What all engines have used since `start`."""
    engines = _ENGINES.get() or []
    return Used(
        requests=sum(e.usage.requests for e, _ in engines),
        computed_tokens=sum(e.usage.computed_tokens for e, _ in engines),
        generated_tokens=sum(e.usage.generated_tokens for e, _ in engines),
        money=sum(_money(e) - before for e, before in engines),
    )


def _money(engine: Any) -> float:
    return float(getattr(engine, "spent", 0.0))
