"""Labelled comparisons: the label is gold's, and nothing but the answers gives it away."""

from __future__ import annotations

import pytest

from rlaif.constitution import Constitution
from rlaif.evaluate.comparisons import Comparison
from rlaif.evaluate.gate import balanced
from rlaif.sandbox import principles
from rlaif.sandbox.answers import traits
from rlaif.sandbox.comparisons import comparisons, constitution_comparisons
from rlaif.sandbox.measure import gold_rank
from rlaif.sandbox.principles import kept
from rlaif.sandbox.quickstart import HERE

WARM = Constitution.load(HERE / "constitutions" / "warm.yaml")


def keeps(c: Comparison, response: int) -> bool | None:
    assert c.principle is not None
    wish = principles.read(c.principle.text)
    found = traits(c.prompt[-1].text, c.responses[response])
    assert wish is not None and found is not None
    return kept(wish, found)


def test_one_of_two_answers_keeps_the_principle_and_it_is_the_better_one() -> None:
    for c in comparisons(100):
        assert c.better is not None
        assert keeps(c, c.better) is True and keeps(c, 1 - c.better) is False


def test_under_a_constitution_gold_ranks_the_better_one_higher() -> None:
    for c in constitution_comparisons(50, WARM):
        assert c.better is not None and c.principle is None
        ranks = [gold_rank(c.prompt[-1].text, text, WARM) for text in c.responses]
        assert ranks[c.better] > ranks[1 - c.better]


@pytest.mark.parametrize(
    "found", [comparisons(400), constitution_comparisons(300, WARM)], ids=["one", "whole"]
)
def test_neither_place_nor_length_gives_the_label_away(found: list[Comparison]) -> None:
    first = sum(c.better == 0 for c in found) / len(found)
    assert 0.4 < first < 0.6
    assert len(balanced(found)) > 0.6 * len(found)


def test_the_seed_decides() -> None:
    assert comparisons(20, 1) == comparisons(20, 1) != comparisons(20, 2)
