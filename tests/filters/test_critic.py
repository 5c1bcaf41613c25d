"""Only a label that a second model is sure of, by a confidence that means something, passes."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from rlaif.engines.scripted import Masses
from rlaif.errors import DataError, RecipeError
from rlaif.filters.critic import Critic, fit_critic, review_pairs, review_picks
from rlaif.label.calibrate import Curve
from rlaif.label.rows import Row, pair_row, sft_row
from tests.label.scripted_judges import (
    make_constitution,
    make_method,
    make_record,
    pointwise_judge,
)

CURVE = Curve(way="platt", slopes=(0.1, 1.0), intercept=0.0, rows=100)
CONSTITUTION = make_constitution("Be kind.")
FACTS = make_constitution("State true facts.").principles


def keeps(log_odds: float) -> Masses:
    p = 1 / (1 + math.exp(-log_odds))
    return p, 1 - p


def pair(chosen: str = "good", rejected: str = "bad", margin: float = 2.0) -> Row:
    return pair_row(make_record(chosen, rejected), 0, 1, margin, 0.0)


def critic(say, *, checks=(), curve: Curve | None = CURVE) -> Critic:
    one = make_method("pointwise")
    return Critic(pointwise_judge(say), one, one, CONSTITUTION, checks, 0.001, curve)


def by_word(response: str, principle: str) -> Masses:
    return keeps(3.0 if response.startswith("good") else -3.0)


def test_a_label_that_the_critic_shares_passes_with_its_confidence() -> None:
    (kept,), drops = review_pairs([pair()], critic(by_word), 0.95)
    assert not drops
    assert kept["chosen_probability"] == pytest.approx(CURVE.confidence(2.0, 6.0))
    assert kept["probability_calibrated"] is True


def test_a_label_that_the_critic_does_not_share_is_dropped_with_the_reason() -> None:
    kept, (drop,) = review_pairs([pair("bad", "good")], critic(by_word), 0.95)
    assert not kept
    assert (drop.stage, drop.reason) == ("critic", "critic's confidence under 0.95")
    assert "responses 0 over 1" in drop.detail


def test_an_abstention_never_passes() -> None:
    kept, (drop,) = review_pairs([pair()], critic(lambda r, p: None), 0.0)
    assert not kept
    assert (drop.reason, drop.detail) == (
        "critic abstained", "responses 0 over 1: the script abstains",
    )  # fmt: skip


def test_without_calibration_nothing_passes_and_the_mend_is_told() -> None:
    with pytest.raises(RecipeError, match="confidence means nothing before it is calibrated"):
        review_pairs([pair()], critic(by_word, curve=None), 0.95)


def test_a_check_that_the_chosen_response_breaks_drops_a_sure_label() -> None:
    def say(response: str, principle: str) -> Masses:
        if principle == "State true facts.":
            return keeps(-1.0 if "moon is cheese" in response else 1.0)
        return by_word(response, principle)

    rows = [pair("good, moon is cheese"), pair("good", "bad, moon is cheese")]
    kept, (drop,) = review_pairs(rows, critic(say, checks=FACTS), 0.5)
    assert drop.reason == "critic: breaks p0"
    assert kept[0]["chosen"] == rows[1]["chosen"]  # what is rejected may be false


def test_a_check_that_is_not_decided_drops_too() -> None:
    def say(response: str, principle: str) -> Masses:
        return None if principle == "State true facts." else by_word(response, principle)

    _, (drop,) = review_pairs([pair()], critic(say, checks=FACTS), 0.5)
    assert (drop.reason, drop.detail.partition(": ")[2]) == (
        "critic abstained", "p0: the script abstains",
    )  # fmt: skip


def test_picks_must_keep_the_checks_and_the_vetoes() -> None:
    veto = make_constitution("Be kind.").principles[0].model_copy(update={"veto": True})
    rows = [sft_row(make_record(text, "x"), 0, 1.0, 1.0) for text in ("good", "bad")]
    one = make_method("pointwise")
    judge = Critic(pointwise_judge(by_word), one, one, make_constitution(veto))
    kept, (drop,) = review_picks(rows, judge)
    assert kept == rows[:1]
    assert drop.reason == "critic: breaks p0"


def test_the_curve_weighs_judge_and_critic_and_a_gold_tie_is_a_wrong_label() -> None:
    rng = np.random.default_rng(0)
    gold = rng.choice([-1.0, 1.0], 4000)
    judge, seen = gold * 2 + rng.normal(0, 2, 4000), gold * 2 + rng.normal(0, 1, 4000)
    better = [None if i % 20 == 0 else int(g < 0) for i, g in enumerate(gold)]
    curve = fit_critic(better, judge.tolist(), seen.tolist())
    assert curve.slopes[1] > 2 * curve.slopes[0] > 0
    assert curve.confidence(10.0, 8.0) < 0.97  # one row in twenty is a tie


def test_rows_without_a_label_or_a_review_are_not_fitted_on() -> None:
    rng = random.Random(0)
    rows = [(0, rng.gauss(2, 1), rng.gauss(2, 1)) for _ in range(60)]
    rows += [(0, None, 1.0), (0, 0.0, 1.0), (0, 1.0, None)]
    better, judge, seen = zip(*rows, strict=True)
    assert fit_critic(better, judge, seen).rows == 60
    with pytest.raises(DataError, match="too few labelled rows"):
        fit_critic(better[:10], judge[:10], seen[:10])
