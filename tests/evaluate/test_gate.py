"""A judge that cannot judge does not pass, however few the rows; a good one does."""

from __future__ import annotations

import random

import pytest

from rlaif.errors import DataError
from rlaif.evaluate.comparisons import Comparison
from rlaif.evaluate.gate import balanced, failures
from rlaif.evaluate.scorecard import measure
from rlaif.recipe import Gate
from rlaif.records import Message, seed_of
from tests.evaluate.test_scorecard import UNDER, by_size, probabilities, rows
from tests.label.scripted_judges import make_method, pairwise_judge, pointwise_judge

GATE = Gate(data="unused")


def fails(engine, mode, n=300, gate=GATE) -> list[str]:
    card, _ = measure(balanced(rows(n)), engine, UNDER, make_method(mode), clip=0.01)
    return failures(card, gate)


def coin(*texts: str) -> tuple[float, float]:
    return probabilities(random.Random(seed_of(*texts)).choice((-3.0, 3.0)))


BROKEN = {
    "always 5": ("rating", pointwise_judge(lambda r, p: (0, 0, 0, 0.02, 0.98))),
    "coin flip": ("pointwise", pointwise_judge(coin)),
    "always the longer one": (
        "pairwise", pairwise_judge(lambda a, b, p: probabilities(float(len(a) - len(b)))),
    ),
    "always A": ("pairwise", pairwise_judge(lambda a, b, p: (0.9, 0.1))),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("n", [20, 300])
def test_a_broken_judge_does_not_pass(name: str, n: int):
    mode, engine = BROKEN[name]
    assert fails(engine, mode, n)


def test_a_good_judge_passes():
    assert fails(pairwise_judge(lambda a, b, p: probabilities(2 * by_size(a))), "pairwise") == []


def test_a_good_judge_on_three_rows_has_not_shown_it():
    found = fails(pairwise_judge(lambda a, b, p: probabilities(2 * by_size(a))), "pairwise", 3)
    assert any("accuracy" in line for line in found)


def test_a_judge_that_mostly_abstains_does_not_pass_on_the_rest():
    def say(response: str, principle: str):
        return probabilities(by_size(response)) if "so so so so so so" in response else None

    assert any("got no label" in line for line in fails(pointwise_judge(say), "pointwise"))


def test_balanced_rows_tell_nothing_by_place_or_length():
    # The better one is first and longer in nine of ten.
    lopsided = [
        Comparison(
            (Message("user", f"p{i}"),), ("good" + " so" * (9 if i % 10 else 0), "bad so"), 0
        )
        for i in range(200)
    ]
    found = balanced(lopsided)
    longer = [len(c.responses[c.better]) > len(c.responses[1 - c.better]) for c in found]
    assert len(found) == 40 and sum(longer) == 20
    assert sum(c.better for c in found) == 20
    # Which rows stay follows from the texts, not from their order in the file.
    assert balanced(lopsided[::-1]) == found


def test_rows_that_length_alone_could_judge_are_refused():
    rows_ = [Comparison((Message("user", "p"),), ("good so so", "bad"), 0)]
    with pytest.raises(DataError, match="the longer one in every row"):
        balanced(rows_, "gate.jsonl")
