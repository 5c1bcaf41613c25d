"""Only a label that a second model is sure of, by a confidence that means something, passes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rlaif.constitution import Principle
from rlaif.engines.scripted import Masses
from rlaif.errors import DataError, RecipeError
from rlaif.filters.critic import Critic, fit_critic, review_pairs, review_picks
from rlaif.label.calibrate import Curve
from rlaif.label.rows import Row, pair_row, sft_row
from rlaif.records import Record, Verdict
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


def critic(say, **changes: Any) -> Critic:
    one = make_method("pointwise")
    settings = {"constitution": CONSTITUTION, "clip": 0.001, "curve": CURVE, **changes}
    return Critic(pointwise_judge(say), one, one, **settings)


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


def test_the_chosen_response_must_keep_the_checks_whatever_the_confidence() -> None:
    def say(response: str, principle: str) -> Masses:
        if principle == "State true facts.":
            return keeps(-1.0 if "moon is cheese" in response else 1.0)
        return by_word(response, principle)

    rows = [pair("good, moon is cheese"), pair("good", "bad, moon is cheese")]
    kept, (drop,) = review_pairs(rows, critic(say, checks=FACTS), 0.5)
    assert drop.reason == "critic: breaks p0"
    assert kept[0]["chosen"] == rows[1]["chosen"]  # what is rejected may be false


def test_the_better_of_two_that_break_a_veto_is_not_trained_on() -> None:
    def say(response: str, principle: str) -> Masses:
        return keeps(-1.0 if principle == "Be safe." else 3.0 if response == "good" else -3.0)

    safe = make_constitution(Principle(id="safe", text="Be safe.", veto=True), "Be kind.")
    kept, (drop,) = review_pairs([pair()], critic(say, constitution=safe), 0.5)
    assert not kept and drop.reason == "critic: breaks safe"


def picked(
    *texts: str, chosen: int = 0, said: Sequence[float | None] = (), rules=CONSTITUTION
) -> tuple[Row, Record]:
    """A pick, and its record with the judge's log-odds of each response under the only rule."""
    said = said or [1.0 if i == chosen else -1.0 for i in range(len(texts))]
    verdicts = [
        Verdict(rules.principles[0].fingerprint, i, None, x, 1.0, reason=None if x else "no label")
        for i, x in enumerate(said)
    ]
    record = make_record(*texts, prompt=f"Say {texts}.").with_(verdicts=tuple(verdicts))
    return sft_row(record, chosen, 1.0, 2.0), record


def test_a_pick_passes_if_the_critic_too_has_it_before_the_others() -> None:
    rows, records = zip(picked("bad", "good", "bad", chosen=1), picked("bad", "good"), strict=True)
    kept, (drop,) = review_picks(rows, records, critic(by_word), 0.95)
    assert kept == [rows[0]]
    assert (drop.id, drop.stage, drop.reason) == (
        records[1].id, "critic", "critic's confidence under 0.95",
    )  # fmt: skip
    assert drop.detail == f"response 0: {CURVE.confidence(2.0, -6.0):.3f}"


def test_a_picks_confidence_is_that_it_is_better_than_one_drawn_from_the_others() -> None:
    def say(response: str, principle: str) -> Masses:
        return keeps({"a": 1.0, "b": 0.0, "c": -2.0}[response])

    row, record = picked("a", "b", "c", said=(0.5, 1.5, -2.5))
    # The judge has b before a: that label is the other way round.
    expected = (1 - CURVE.confidence(1.0, -1.0) + CURVE.confidence(3.0, 3.0)) / 2
    for least, count in ((expected - 1e-6, 1), (expected + 1e-6, 0)):
        assert len(review_picks([row], [record], critic(say), least)[0]) == count


def test_a_response_that_either_model_is_silent_on_is_not_compared_with() -> None:
    def say(response: str, principle: str) -> Masses:
        return None if response == "c" else keeps({"a": 1.0, "b": -1.0, "d": 9.0}[response])

    row, record = picked("a", "b", "c", "d", said=(1.0, -1.0, 0.5, None))
    expected = CURVE.confidence(2.0, 2.0)
    for least, count in ((expected - 1e-6, 1), (expected + 1e-6, 0)):
        assert len(review_picks([row], [record], critic(say), least)[0]) == count


def test_a_pick_must_keep_the_checks_and_the_vetoes() -> None:
    def say(response: str, principle: str) -> Masses:
        return None if "unread" in response else keeps(-1.0 if principle in response else 9.0)

    rules = make_constitution(Principle(id="veto", text="Be safe.", veto=True))
    chosen = ["good", "Be safe.", "State true facts.", "unread"]
    rows, records = zip(*(picked(text, "x", rules=rules) for text in chosen), strict=True)
    kept, drops = review_picks(rows, records, critic(say, checks=FACTS, constitution=rules), 0.0)
    assert kept == [rows[0]]
    said = [drop.reason for drop in drops]
    assert said == ["critic: breaks veto", "critic: breaks p0", "critic abstained"]


def test_a_pick_that_the_critic_cannot_compare_is_dropped_with_the_reason() -> None:
    row, record = picked("good", "unread")
    judge = critic(lambda r, p: None if r == "unread" else keeps(3.0))
    kept, (drop,) = review_picks([row], [record], judge, 0.0)
    assert not kept
    assert (drop.reason, drop.detail) == (
        "critic abstained", "response 0: the script abstains",
    )  # fmt: skip
    with pytest.raises(RecipeError, match="confidence means nothing before it is calibrated"):
        review_picks([row], [record], critic(by_word, curve=None), 0.0)


def test_a_margin_needs_as_much_decided_as_the_recipe_asks() -> None:
    def say(response: str, principle: str) -> Masses:
        return None if principle == "Be brief." else by_word(response, principle)

    two = make_constitution("Be kind.", "Be brief.")
    row, record = picked("good", "bad")
    for least, count in ((0.5, 1), (1.0, 0)):
        judge = critic(say, constitution=two, min_decided=least)
        assert len(review_pairs([pair()], judge, 0.9)[0]) == count
        assert len(review_picks([row], [record], judge, 0.9)[0]) == count


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
