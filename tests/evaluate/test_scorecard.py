"""Faults of a judge that a scorecard must show, each put into a judge on purpose."""

from __future__ import annotations

import math
import random

import pytest

from rlaif.engines.scripted import ScriptedEngine
from rlaif.evaluate.comparisons import Comparison, Judged
from rlaif.evaluate.scorecard import Cost, Prices, calibration, measure, scorecard
from rlaif.records import Message, seed_of
from tests.label.scripted_judges import (
    make_constitution,
    make_method,
    pairwise_judge,
    pointwise_judge,
)

UNDER = make_constitution("Be kind.")


def rows(n: int = 300, seed: int = 0) -> list[Comparison]:
    """The better response says "good"; lengths and sides are drawn."""
    rng, made = random.Random(seed), []
    for i in range(n):
        texts = [f"{word}{' so' * rng.randrange(1, 9)} {i}" for word in ("good", "bad")]
        c = Comparison((Message("user", f"prompt {seed} {i}"),), (texts[0], texts[1]), 0)
        made.append(c if rng.random() < 0.5 else c.swapped)
    return made


def by_size(word: str) -> float:
    return 1.0 if word.startswith("good") else -1.0


def probabilities(log_odds: float) -> tuple[float, float]:
    p = 1 / (1 + math.exp(-log_odds))
    return p, 1 - p


def noise(*parts: str) -> float:
    return random.Random(seed_of(*parts)).gauss(0, 1)


def card(engine: ScriptedEngine, mode="pairwise", comparisons=None, **settings):
    method = make_method(mode)
    return measure(comparisons or rows(), engine, UNDER, method, clip=0.0001, **settings)[0]


def test_a_liking_for_the_first_place_is_seen():
    found = card(pairwise_judge(lambda a, b, p: probabilities(by_size(a) + 2.0)))
    assert (found.flip_rate.value, found.first_both, found.second_both) == (1.0, 1.0, 0.0)
    assert found.accuracy.value == 1.0  # both orders together


def test_a_liking_for_length_is_seen():
    found = card(pairwise_judge(lambda a, b, p: probabilities(float(len(a) - len(b)))))
    assert found.length.labels.value == 1.0
    assert 0.3 < found.length.gold.value < 0.7
    assert found.accuracy.low < 0.6


def test_a_judge_that_always_says_the_same_has_one_bar_and_no_label():
    found = card(pointwise_judge(lambda r, p: (0.95, 0.05)), "pointwise")
    assert found.histogram == (0,) * 9 + (600,)
    assert (found.tied, found.accuracy.rows) == (300, 0)


def test_an_over_sure_judge_is_seen_and_its_calibrated_confidence_is_measured_on_other_prompts():
    def say(response: str, principle: str):
        return probabilities(10 * (0.4 * by_size(response) + noise(response, "pointwise")))

    found = card(pointwise_judge(say), "pointwise", rows(1200))
    assert found.accuracy.value < 0.8
    assert found.raw.error > 0.2
    assert found.calibrated is not None and found.calibrated.error < 0.08


def test_abstentions_are_counted_by_reason_and_are_in_no_rate():
    def say(response: str, principle: str):
        return None if "so so so so" in response else probabilities(by_size(response))

    found = card(pointwise_judge(say), "pointwise")
    assert set(found.abstained) == {"the script abstains"}
    assert found.accuracy.rows == 300 - sum(found.abstained.values())
    assert found.accuracy.value == 1.0


def test_a_gold_tie_makes_a_sure_label_wrong():
    tied = [Comparison((Message("user", "p"),), ("good", "bad"), None)]
    found = card(pointwise_judge(lambda r, p: probabilities(by_size(r))), "pointwise", tied)
    assert found.accuracy.value == 0.0


def test_cost_counts_calls_and_money():
    engine = pairwise_judge(lambda a, b, p: probabilities(by_size(a)))
    engine.usage.computed_tokens = 10**6  # from before
    found = card(engine, prices=Prices(prompt=3.0, generated=15.0))
    assert (found.cost.labels, found.cost.requests) == (300, 600)
    assert found.cost.prompt_tokens == 0 and found.cost.money == 0.0


def test_principles_and_subsets_have_rates_of_their_own():
    kind, calm = make_constitution("Be kind.", "Be calm.").principles
    about = [
        Comparison(c.prompt, c.responses, c.better, (kind, calm)[i % 2], f"s{i % 2}")
        for i, c in enumerate(rows(200))
    ]
    wrong = pointwise_judge(lambda r, p: probabilities(by_size(r) * (1 if p == "Be kind." else -1)))
    found = card(wrong, "pointwise", about)
    assert {k: v.value for k, v in found.by_principle.items()} == {"p0": 1.0, "p1": 0.0}
    assert {k: v.value for k, v in found.by_subset.items()} == {"s0": 1.0, "s1": 0.0}


def judged(n: int, principle=None) -> list[Judged]:
    made = []
    for i in range(n):
        c = Comparison((Message("user", f"p{i}"),), ("good", "bad"), int(i % 4 == 0), principle)
        made.append(Judged(c, 1.0 + i / n, None, None, {}, (), 1.0))
    return made


def test_a_calibration_has_curves_for_principles_with_enough_rows_alone():
    kind, calm = make_constitution("Be kind.", "Be calm.").principles
    rows_ = [*judged(60, kind), *judged(10, calm), *judged(70)]
    both = make_constitution("Be kind.", "Be calm.")
    found = calibration(rows_, "the judge", make_method(), both)
    assert set(found.principles) == {kind.fingerprint}
    assert found.pair.rows == 70
    assert found.pair.confidence(1.5) == pytest.approx(0.75, abs=0.1)


def test_few_rows_give_no_calibrated_figure_rather_than_a_wrong_one():
    found = scorecard(judged(20), {}, make_method(), Cost(20, 20, 0, 0, 1.0))
    assert found.calibrated is None
