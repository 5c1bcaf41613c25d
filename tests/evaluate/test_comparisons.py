"""A judge's margin on labelled comparisons, from both orders."""

from __future__ import annotations

import math

import pytest

from rlaif.constitution import Example, Principle
from rlaif.evaluate.comparisons import Comparison, examples, judge_comparisons
from rlaif.records import Message
from tests.label.scripted_judges import (
    make_constitution,
    make_method,
    pairwise_judge,
    pointwise_judge,
)

PROMPT = (Message("user", "What is a tide?"),)
CALM = Principle(id="calm", text="Be calm.", weight=3.0, veto=True)


def make(a: str = "good", b: str = "bad", better: int | None = 0, **more) -> Comparison:
    return Comparison(PROMPT, (a, b), better, **more)


def biased(bias: float):
    """Prefers "good" by 1 nat, and whatever stands first by `bias`."""

    def say(a: str, b: str, principle: str):
        p = 1 / (1 + math.exp(-((1.0 if a == "good" else -1.0) + bias)))
        return (p, 1 - p)

    return pairwise_judge(say)


def judged(comparison, engine, mode="pairwise", constitution=None, **settings):
    method = make_method(mode, **settings)
    under = constitution or make_constitution("Be kind.")
    return judge_comparisons([comparison], engine, under, method, clip=0.001)[0]


@pytest.mark.parametrize("bias", [0.0, 1.5, -3.0])
def test_a_liking_for_a_place_is_averaged_out_and_seen_in_each_order(bias):
    found = judged(make(), biased(bias))
    assert found.margin == pytest.approx(1.0)
    assert (found.in_order, found.swapped) == pytest.approx((1 + bias, 1 - bias))
    assert found.said == pytest.approx((1 + bias, -1 + bias))
    assert found.right


def test_a_comparison_about_one_principle_is_judged_under_it_alone_at_weight_one():
    asked = []

    def say(response: str, principle: str):
        asked.append(principle)
        return (0.9, 0.1) if response == "good" else (0.1, 0.9)

    found = judged(make(principle=CALM), pointwise_judge(say), "pointwise")
    assert set(asked) == {"Be calm."}
    assert found.margin == pytest.approx(2 * math.log(9))


def test_gold_decides_what_is_right_and_a_gold_tie_confirms_nothing():
    assert judged(make(better=1), biased(0)).right is False
    assert judged(make(better=None), biased(0)).right is False
    assert judged(make().swapped, biased(0)).right is True


def test_a_judge_without_an_opinion_gives_no_label():
    found = judged(make(), pointwise_judge(lambda r, p: (0.5, 0.5)), "pointwise")
    assert (found.margin, found.right) == (0.0, None)


def test_an_abstention_has_a_reason_and_no_label():
    found = judged(make(), pointwise_judge(lambda r, p: None), "pointwise")
    assert (found.margin, found.right, found.reason) == (None, None, "the script abstains")


def test_examples_alternate_the_place_of_the_better_one():
    shown = [Example(prompt=f"p{i}", better="good", worse="bad") for i in range(4)]
    found = examples(make_constitution(Principle(id="kind", text="Be kind.", examples=shown)))
    assert [c.better for c in found] == [0, 1, 0, 1]
    assert all(c.responses[c.better] == "good" for c in found)
