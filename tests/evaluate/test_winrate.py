"""The win rate of a trained student over its former self."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif.constitution import Constitution, Principle
from rlaif.evaluate.winrate import (
    flip_rate,
    length_controlled,
    side_by_side,
    win_rate,
)
from rlaif.records import Message, Record, Response, Verdict

RULE = Principle(id="rule", text="Be right.")
CONSTITUTION = Constitution(name="test", principles=(RULE,))


def record(id_: str, *texts: str, log_odds: float | None = None, gap: float = 0.0) -> Record:
    responses = tuple(Response(text, len(text.split()), "stop") for text in texts)
    verdicts: tuple[Verdict, ...] = ()
    if len(texts) == 2:
        reason = "little coverage" if log_odds is None else None
        verdicts = (Verdict(RULE.fingerprint, 0, 1, log_odds, 1.0, gap, reason),)
    return Record(id_, (Message("user", id_),), responses, verdicts, {"prompt": id_})


def rate(records: list[Record]) -> float:
    return win_rate(records, CONSTITUTION, clip=0.01, min_decided=1.0, resamples=200).win_rate


def test_the_second_response_is_the_one_that_wins() -> None:
    assert rate([record("a", "old", "new", log_odds=-2.0)]) == 1.0
    assert rate([record("a", "old", "new", log_odds=2.0)]) == 0.0


def test_equal_texts_are_half_a_win_and_need_no_verdict() -> None:
    assert rate([record("a", "same", " same ")]) == 0.5


def test_an_abstention_is_counted_apart_and_is_no_tie() -> None:
    records = [record("a", "old", "new", log_odds=-2.0), record("b", "old", "new")]
    result = win_rate(records, CONSTITUTION, clip=0.01, min_decided=1.0, resamples=200)
    assert (result.win_rate, result.comparisons, result.undecided) == (1.0, 2, 1)


def test_without_a_decided_comparison_there_is_no_rate() -> None:
    assert math.isnan(rate([record("a", "old", "new")]))


def test_a_verdict_flips_if_the_order_decides_it() -> None:
    steady = record("a", "x", "y", log_odds=1.0, gap=0.5)
    flips = record("b", "x", "y", log_odds=0.2, gap=3.0)
    assert flip_rate([steady, flips]) == 0.5


def test_answers_are_paired_by_prompt_and_place() -> None:
    base = [record("p", "a", "b", log_odds=0.0), record("q", "c")]
    trained = [record("p", "A", "B", log_odds=0.0)]
    pairs = side_by_side(base, trained)
    assert [[r.text for r in p.responses] for p in pairs] == [["a", "A"], ["b", "B"]]
    assert all(p.meta["prompt"] == "p" and not p.verdicts for p in pairs)


def test_a_win_by_length_alone_is_no_win_at_equal_length() -> None:
    length = np.linspace(-20, 20, 400)
    longer_wins = (length > 0).astype(float)
    mostly_longer = np.concatenate([length, np.full(400, 15.0)])
    wins = np.concatenate([longer_wins, np.ones(400)])
    assert wins.mean() > 0.7
    assert length_controlled(wins, mostly_longer) == pytest.approx(0.5, abs=0.1)
    assert length_controlled(np.ones(100), np.zeros(100)) > 0.95
