"""A recipe's teacher on labelled comparisons, in each way of asking: `rlaif scorecard`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import get_args

from rlaif.constitution import Constitution
from rlaif.engines.load import load_engine
from rlaif.errors import RecipeError
from rlaif.evaluate.comparison_files import load_comparisons
from rlaif.evaluate.scorecard import Prices, Scorecard, measure
from rlaif.label.method import Method, Mode
from rlaif.recipe import Judge, Recipe

_REASONING = "+reasoning"


def scorecards(
    recipe: Recipe,
    data: Path,
    ways: Sequence[str] = (),
    limit: int | None = None,
    prices: Prices | None = None,
) -> tuple[list[Scorecard], dict[str, int]]:
    """One scorecard a way of asking, and the rows of the file that were kept aside, by reason.

    Args:
        recipe: whose teacher, constitution and `judge` section are measured.
        data: the labelled comparisons.
        ways: "pairwise", "rating+reasoning", …; none: as the recipe asks.
        limit: take so many comparisons, at even distances in the file.
        prices: for the cost in money.

    Raises:
        RlaifError: an unknown way, or whatever cannot be read or loaded.
    """
    constitution = Constitution.load(recipe.constitution)
    methods = [_method(recipe.judge, way) for way in ways] or [Method.load(recipe.judge)]
    rows, drops = load_comparisons(data, constitution)
    if limit is not None and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    with closing(load_engine(recipe.teacher)) as teacher:
        cards = [
            measure(
                rows, teacher, _without_vetoes(constitution, method), method,
                clip=recipe.judge.clip, min_decided=recipe.pick.min_decided, prices=prices,
            )[0]
            for method in methods
        ]  # fmt: skip
    return cards, dict(Counter(drop.reason for drop in drops))


def _method(settings: Judge, way: str) -> Method:
    mode, plus, reasoning = way.partition("+")
    if mode not in get_args(Mode) or plus + reasoning not in ("", _REASONING):
        raise RecipeError(
            "no such way of asking", key="--mode", value=way,
            mend=f"use {', '.join(get_args(Mode))}, each with {_REASONING} behind it or not",
        )  # fmt: skip
    changes = {"mode": mode, "reasoning": bool(reasoning)}
    return Method.load(settings.model_copy(update=changes))


def _without_vetoes(constitution: Constitution, method: Method) -> Constitution:
    """Two responses at once do not say whether either breaks a veto: there it only weighs."""
    if method.mode != "pairwise":
        return constitution
    principles = tuple(p.model_copy(update={"veto": False}) for p in constitution.principles)
    return constitution.model_copy(update={"principles": principles})
