"""What the engines of a process have used, all together, and leave to use more: the loop's books.

    load_engine → metered(engine) → used()
                  each call: about how many tokens it will take → `before`, which may refuse it
                  each request with a price: the most it may cost → `before_paying`, likewise

How many tokens a call takes can only be guessed at, but what a request may cost at most is known.
An engine that is closed has still been used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rlaif.engines.protocol import Engine, Generation, Label, LabelScore, Sampling
from rlaif.records import Chat

_BYTES_A_TOKEN = 3
"""Few: a text is seldom more tokens than that."""
_TOKENS_A_MESSAGE = 8
"""What a chat template puts around one."""
_MARGIN = 1.5
"""How much more than any call so far the next may take of what is foreseen of it."""

Before = Callable[[int], None]
BeforePaying = Callable[[float], None]
T = TypeVar("T")


@dataclass(slots=True)
class _Meter:
    before: Before | None
    before_paying: BeforePaying | None
    engines: list[tuple[Engine, float]] = field(default_factory=list)


_METER: ContextVar[_Meter | None] = ContextVar("meter", default=None)


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


def start(before: Before | None = None, before_paying: BeforePaying | None = None) -> None:
    """From now on, engines that are loaded in this context are counted.

    Args:
        before: is told before each call how many tokens it may take; what it raises keeps the
            call from being made.
        before_paying: is told before each request that has a price what may be spent next, beyond
            what is `used`; what it raises keeps the request from being sent.
    """
    _METER.set(_Meter(before, before_paying))


def stop() -> None:
    """From now on, engines are not counted."""
    _METER.set(None)


def metered(engine: Engine) -> Engine:
    """The engine itself, counted where something asked for it."""
    meter = _METER.get()
    if meter is None:
        return engine
    # What a server was paid before is in no line of ours twice.
    meter.engines.append((engine, _money(engine)))
    paying: Any = engine
    if meter.before_paying is not None and hasattr(paying, "before_paying"):
        paying.before_paying(meter.before_paying)
    return engine if meter.before is None else _Asking(engine, meter.before)


def used() -> Used:
    """What all engines have used since `start`."""
    meter = _METER.get()
    engines = [] if meter is None else meter.engines
    return Used(
        requests=sum(e.usage.requests for e, _ in engines),
        computed_tokens=sum(e.usage.computed_tokens for e, _ in engines),
        generated_tokens=sum(e.usage.generated_tokens for e, _ in engines),
        money=sum(_money(e) - before for e, before in engines),
    )


class _Asking:
    """An engine that asks before each call."""

    def __init__(self, engine: Engine, before: Before) -> None:
        self._engine, self._before = engine, before
        self._shares: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        foreseen = _tokens(chats) + len(chats) * sampling.n * sampling.max_tokens
        return self._ask(
            "generate", foreseen, lambda: self._engine.generate(chats, sampling, seeds)
        )

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        return self._ask("score", _tokens(chats), lambda: self._engine.score_labels(chats, labels))

    def _ask(self, kind: str, foreseen: int, call: Callable[[], T]) -> T:
        share = self._shares.get(kind)
        self._before(foreseen if share is None else int(foreseen * min(1.0, _MARGIN * share)))
        start = self._so_far()
        answer = call()
        took = (self._so_far() - start) / max(1, foreseen)
        self._shares[kind] = max(took, share or 0.0)
        return answer

    def _so_far(self) -> int:
        usage = self._engine.usage
        return usage.computed_tokens + usage.generated_tokens


def _tokens(chats: Sequence[Chat]) -> int:
    """About how many tokens chats are, each prefix that two of them share counted once."""
    texts = sorted("\0".join(m.text for m in chat) for chat in chats)
    size, last = 0, ""
    for text in texts:
        shared = len(os.path.commonprefix([last, text]))  # noqa: RUF071  # of characters
        size += len(text[shared:].encode())
        last = text
    return size // _BYTES_A_TOKEN + _TOKENS_A_MESSAGE * sum(len(chat) for chat in chats)


def _money(engine: Any) -> float:
    return float(getattr(engine, "spent", 0.0))
