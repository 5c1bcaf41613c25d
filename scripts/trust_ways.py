"""The ways of asking that trust_strategies.py compares, each by the name it has in the table."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from rlaif.engines.protocol import Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.filters.debate import Debating, debate
from rlaif.filters.escalate import Step
from rlaif.filters.vote import vote
from rlaif.filters.ways import Way, both_orders, each_alone, once
from rlaif.label.method import Method, Mode
from rlaif.label.templates import load_template
from rlaif.records import Chat
from rlaif.sandbox import forms
from rlaif.sandbox.principles import read

_SHORT = Sampling(max_tokens=96)


def _method(mode: Mode, *, reasoning: bool = False) -> Method:
    return Method(
        mode, load_template(mode), reasoning=load_template("reasoning") if reasoning else None
    )


PAIR, ONE = _method("pairwise"), _method("pointwise")
REASONED = _method("pointwise", reasoning=True)


def _alone(way: Callable[..., object], **settings: object) -> Way:
    return partial(each_alone, way=partial(way, **settings))  # type: ignore[arg-type]


def _orders(way: Callable[..., object], **settings: object) -> Way:
    return partial(both_orders, way=partial(way, **settings))  # type: ignore[arg-type]


def fixed() -> dict[str, Way]:
    """What asks for label words alone."""
    return {
        "one call": partial(once, method=PAIR),
        "both orders": _orders(once, method=PAIR),
        "each alone": _alone(once, method=ONE),
        "vote of 8, both orders": _orders(vote, method=PAIR, times=4),
        "vote of 8, each alone": _alone(vote, method=ONE, times=4),
        "vote of 12, each alone": _alone(vote, method=ONE, times=6),
    }


def written() -> dict[str, Way]:
    """What has the judge, or debaters, write something first."""
    world = ScriptedEngine(world_debater)
    return {
        "reasons, each alone": _alone(once, method=REASONED),
        "vote of 4 reasons, each alone": _alone(vote, method=REASONED, times=4),
        "debate, 1 round": _alone(debate, method=Debating.load(1, _SHORT)),
        "debate, 2 rounds": _alone(debate, method=Debating.load(2, _SHORT)),
        "debate, the world's own arguments": _alone(
            debate, method=Debating.load(1, _SHORT), keeps=world, breaks=world
        ),
    }


EQUAL_CALLS = {
    "debate, 1 round": "vote of 8, each alone",
    "debate, 2 rounds": "vote of 12, each alone",
}
"""Each debate, and the vote that makes as many calls."""


def steps() -> tuple[Step, ...]:
    """Escalation: a call, other forms of the question, each with noise of its own; then a vote."""
    ways = fixed() | written()
    names = ("one call", "each alone", "reasons, each alone", "both orders")
    return tuple(Step(n, ways[n]) for n in (*names, "vote of 4 reasons, each alone"))


def world_debater(chat: Chat) -> str:
    """The sandbox's argument for the side that it is asked for: no debater could know more."""
    content = chat[0].content
    assert isinstance(content, tuple)
    prompt, response, principle, side = content[1::2]
    wish = read(principle)
    assert wish is not None
    keeps = side == "keeps"
    return forms.argument(prompt, response, wish, keeps, random.Random(f"{response} {side}"))
