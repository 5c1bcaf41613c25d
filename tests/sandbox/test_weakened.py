"""Each fault does what it is for, and nothing else."""

from __future__ import annotations

import math
import statistics

import pytest

from rlaif.engines.protocol import LETTERS, NO, RATINGS, YES, LabelScore
from rlaif.engines.scripted import ScriptedEngine
from rlaif.label.templates import load_template
from rlaif.records import Message
from rlaif.sandbox.remembered import Remembered
from rlaif.sandbox.weakened import Faults, Weakened

POINTWISE, PAIRWISE = load_template("pointwise"), load_template("pairwise")


def one(response: str = "Hello there.", principle: str = "Be kind."):
    return (POINTWISE.message(prompt="Hi.", response=response, principle=principle),)


def two(a: str, b: str, principle: str = "Be kind."):
    return (PAIRWISE.message(prompt="Hi.", response_a=a, response_b=b, principle=principle),)


def log_odds(score: LabelScore) -> float:
    assert score.logprobs is not None
    return score.logprobs[0] - score.logprobs[1]


def weakened(masses=(0.6, 0.3), **faults: float) -> Weakened:
    return Weakened(ScriptedEngine(score=lambda chat, labels: masses), Faults(**faults))


def test_no_fault_changes_nothing() -> None:
    (found,) = weakened().score_labels([one()], [YES, NO])
    assert found.logprobs == pytest.approx((math.log(0.6), math.log(0.3)))


def test_the_mass_on_the_labels_stays() -> None:
    (found,) = weakened(scale=0.3, item_noise=5.0).score_labels([one()], [YES, NO])
    assert found.coverage == pytest.approx(0.9)


def test_a_position_bias_is_for_whatever_stands_first_and_in_no_other_mode() -> None:
    judge = weakened(scale=0.5, position_bias=1.5)
    pair = judge.score_labels([two("x", "y"), two("y", "x")], LETTERS)
    assert [log_odds(s) for s in pair] == pytest.approx([0.5 * math.log(2) + 1.5] * 2)
    assert log_odds(judge.score_labels([one()], [YES, NO])[0]) == pytest.approx(0.5 * math.log(2))


def test_a_length_bias_counts_words() -> None:
    judge = weakened((0.5, 0.5), length_bias=0.25)
    assert log_odds(judge.score_labels([one("one two three")], [YES, NO])[0]) == pytest.approx(0.75)
    (pair,) = judge.score_labels([two("one", "one two three")], LETTERS)
    assert log_odds(pair) == pytest.approx(-0.5)


def test_item_noise_stays_with_the_item_and_with_the_response() -> None:
    judge = weakened((0.5, 0.5), item_noise=2.0)
    chats = [one(), one(), two("x", "y"), two("y", "x")]
    a, b, ab, ba = (
        log_odds(judge.score_labels([c], LETTERS if i > 1 else [YES, NO])[0])
        for i, c in enumerate(chats)
    )
    assert a == b != 0
    assert ab == pytest.approx(-ba) and ab != 0  # an opinion: no average of orders cures it


def test_there_is_no_opinion_between_equal_texts() -> None:
    judge = weakened((0.5, 0.5), item_noise=2.0)
    assert log_odds(judge.score_labels([two("x", "x")], LETTERS)[0]) == 0


def test_item_noise_is_for_the_question_not_for_what_was_reasoned() -> None:
    judge = weakened((0.5, 0.5), item_noise=2.0)
    said = [(*one(), Message("assistant", (why, "\nVerdict:"))) for why in ("Yes.", "No.")]
    plain, yes, no = (log_odds(s) for s in judge.score_labels([one(), *said], [YES, NO]))
    assert plain == yes == no != 0


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_a_label_without_mass_stays_without(scale: float) -> None:
    (found,) = weakened((0.9, 0.0), scale=scale, item_noise=1.0).score_labels([one()], [YES, NO])
    assert found.logprobs == (pytest.approx(math.log(0.9)), -math.inf)


def test_noise_has_its_size_and_call_noise_is_drawn_anew() -> None:
    judge = weakened((0.5, 0.5), call_noise=2.0)
    found = [log_odds(s) for s in judge.score_labels([one()] * 2000, [YES, NO])]
    assert statistics.mean(found) == pytest.approx(0, abs=0.15)
    assert statistics.stdev(found) == pytest.approx(2.0, rel=0.06)
    again = weakened((0.5, 0.5), call_noise=2.0)
    assert [log_odds(s) for s in again.score_labels([one()] * 2000, [YES, NO])] == found
    items = weakened((0.5, 0.5), item_noise=2.0)
    found = [log_odds(s) for s in items.score_labels([one(str(i)) for i in range(2000)], [YES, NO])]
    assert statistics.stdev(found) == pytest.approx(2.0, rel=0.06)


def test_a_rating_is_tilted_along_its_scale() -> None:
    (found,) = weakened((0.1, 0.1, 0.5, 0.1, 0.1), length_bias=1.0).score_labels([one()], RATINGS)
    assert found.logprobs is not None
    assert found.logprobs[4] - found.logprobs[0] == pytest.approx(2.0)  # two words
    assert found.coverage == pytest.approx(0.9)


@pytest.mark.parametrize("masses", [None, (0.0, 0.0), (math.nan, 0.5)])
def test_what_cannot_be_read_is_passed_on(masses) -> None:
    score = LabelScore(None, "no") if masses is None else LabelScore(
        tuple(math.log(m) if m > 0 else m if math.isnan(m) else -math.inf for m in masses)
    )  # fmt: skip
    judge = Weakened(ScriptedEngine(score=lambda chat, labels: score), Faults(item_noise=1.0))
    assert judge.score_labels([one()], [YES, NO])[0] is score


def test_other_faults_are_another_judge() -> None:
    names = [weakened(**f).identity for f in ({}, {"scale": 0.5}, {"seed": 1})]
    assert len({str(sorted(n.items())) for n in names}) == 3


def test_remembered_asks_once() -> None:
    engine = ScriptedEngine(score=lambda chat, labels: (0.6, 0.3))
    judge = Remembered(engine)
    first = judge.score_labels([one("a"), one("b"), one("a")], [YES, NO])
    assert judge.score_labels([one("b"), one("a")], [YES, NO]) == [first[1], first[0]]
    assert engine.usage.requests == 2
