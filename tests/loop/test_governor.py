from __future__ import annotations

import math
from typing import Any

import pytest

from rlaif.loop.figures import Figure, Figures
from rlaif.loop.governor import best, check
from rlaif.recipe import Stop

OPEN = {
    "max_length_growth": None, "max_one_bin": None, "not_better": False, "falling": False,
    "max_drift": None, "min_tail_coverage": None,
}  # fmt: skip
BASE = Figures(round=-1, mean_tokens=10.0)


def only(**rule: Any) -> Stop:
    """One rule, and no other."""
    return Stop(**{**OPEN, **rule})


def stopped(stop: Stop, *rounds: Figures, base: Figures | None = BASE) -> str | None:
    fault = check(base, rounds, stop)
    return None if fault is None else fault.rule


def one(number: int = 0, **figures: Any) -> Figures:
    return Figures(round=number, **figures)


def collapse(measure: str, value: float | None) -> dict[str, Any]:
    return {measure: {"value": value}}


EVERYTHING = one(
    mean_tokens=99.0, scores=(0,) * 9 + (9,), win_rate=Figure(0.1, 0.0, 0.2), metric=Figure(0.0),
    collapse={"drift": {"value": 9.0}, "tail_coverage": {"value": 0.0}},
)  # fmt: skip


def test_without_rules_nothing_stops_a_loop() -> None:
    base = one(-1, mean_tokens=1.0, metric=Figure(1.0), collapse=collapse("tail_coverage", 1.0))
    assert check(base, [EVERYTHING], only()) is None


def test_a_round_of_which_nothing_is_known_passes_every_rule() -> None:
    every = Stop(max_drift=0.1)
    assert check(None, [one()], every) is None
    assert check(Figures(round=-1), [one(), one(1)], every) is None


@pytest.mark.parametrize(("tokens", "rule"), [(15.0, None), (15.1, "length"), (3.0, None)])
def test_answers_may_grow_so_far_and_no_further(tokens: float, rule: str | None) -> None:
    assert stopped(only(max_length_growth=1.5), one(mean_tokens=tokens)) == rule


def test_length_is_held_against_the_student_before_any_round_not_the_last_one() -> None:
    slow = [one(0, mean_tokens=13.0), one(1, mean_tokens=16.0)]
    assert stopped(only(max_length_growth=1.5), *slow) == "length"


@pytest.mark.parametrize("base", [None, one(-1), one(-1, mean_tokens=0.0)])
def test_what_was_not_measured_before_holds_no_length_back(base: Figures | None) -> None:
    assert stopped(only(max_length_growth=1.5), one(mean_tokens=99.0), base=base) is None


@pytest.mark.parametrize(
    ("counts", "rule"),
    [((0,) * 9 + (98, ), "scores"), ((2,) + (0,) * 8 + (98,), None),
     ((1,) + (0,) * 8 + (99,), "scores"), ((0,) * 10, None), ((), None)],
)  # fmt: skip
def test_a_judge_that_always_says_the_same_is_seen(
    counts: tuple[int, ...], rule: str | None
) -> None:
    assert stopped(only(max_one_bin=0.98), one(scores=counts)) == rule


@pytest.mark.parametrize(
    ("counts", "accuracy", "rule"),
    [
        ((1,) + (0,) * 8 + (99,), Figure(0.9, 0.85, 0.95), None),
        ((1,) + (0,) * 8 + (99,), Figure(0.52, 0.45, 0.6), "scores"),  # always yes
        ((99,) + (0,) * 8 + (1,), Figure(0.9, 0.85, 0.95), "scores"),  # always no
        ((0,) * 5 + (99,) + (0,) * 4, Figure(0.9, 0.85, 0.95), "scores"),
    ],
)  # fmt: skip
def test_a_judge_that_is_surely_right_may_find_every_answer_good(
    counts: tuple[int, ...], accuracy: Figure, rule: str | None
) -> None:
    found = one(scores=counts, judge_accuracy=accuracy)
    assert stopped(only(max_one_bin=0.98), found) == rule


def test_the_reason_names_the_fullest_bin_and_its_share() -> None:
    fault = check(BASE, [one(scores=(0, 0, 99, 0, 0, 0, 0, 0, 0, 1))], only(max_one_bin=0.98))
    assert fault is not None
    assert "99.0%" in fault.reason and "0.2 and 0.3" in fault.reason


@pytest.mark.parametrize(("drift", "rule"), [(0.5, None), (0.51, "drift"), (None, None)])
def test_answers_may_drift_so_far(drift: float | None, rule: str | None) -> None:
    assert stopped(only(max_drift=0.5), one(collapse=collapse("drift", drift))) == rule


@pytest.mark.parametrize(
    ("before", "now", "rule"),
    [(0.8, 0.56, None), (0.8, 0.55, "tail"), (0.8, None, None), (None, 0.0, None),
     (0.0, 0.0, None)],
)  # fmt: skip
def test_the_tail_is_held_against_what_was_reached_before_any_round(
    before: float | None, now: float | None, rule: str | None
) -> None:
    base = one(-1, collapse=collapse("tail_coverage", before))
    made = one(collapse=collapse("tail_coverage", now))
    assert stopped(only(min_tail_coverage=0.7), made, base=base) == rule


@pytest.mark.parametrize(
    ("last", "rule"),
    [(Figure(0.5, 0.4, 0.59), "falling"), (Figure(0.5, 0.4, 0.6), None), (Figure(0.9), None),
     (Figure(0.59), "falling"), (None, None)],
)  # fmt: skip
def test_a_metric_has_fallen_where_the_intervals_do_not_meet(
    last: Figure | None, rule: str | None
) -> None:
    before = one(0, metric=Figure(0.7, 0.6, 0.8))
    assert stopped(only(falling=True), before, one(1, metric=last)) == rule


def test_a_metric_is_held_against_the_best_round_or_else_the_student_before_any() -> None:
    rounds = [one(0, metric=Figure(0.9)), one(1, metric=Figure(0.8)), one(2, metric=Figure(0.85))]
    assert stopped(only(falling=True), *rounds) == "falling"
    assert stopped(only(falling=True), rounds[1], base=one(-1, metric=Figure(0.9))) == "falling"
    assert stopped(only(falling=True), rounds[1], base=None) is None


@pytest.mark.parametrize(
    ("won", "rule"),
    [(Figure(0.6, 0.5, 0.7), "not_better"), (Figure(0.6, 0.51, 0.7), None),
     (Figure(0.5), "not_better"), (Figure(0.51), None), (None, None)],
)  # fmt: skip
def test_a_win_rate_has_to_be_surely_above_one_half(won: Figure | None, rule: str | None) -> None:
    assert stopped(only(not_better=True), one(win_rate=won)) == rule


def test_of_several_faults_the_one_that_explains_the_others_is_told() -> None:
    base = one(-1, mean_tokens=1.0, metric=Figure(1.0))
    assert stopped(Stop(), EVERYTHING, base=base) == "length"


def test_the_best_round_is_that_of_the_highest_metric_the_earlier_of_equals() -> None:
    rounds = [one(i, metric=Figure(v)) for i, v in enumerate((0.5, 0.7, 0.7, 0.6))]
    found = best(rounds)
    assert found is not None and found.round == 1


def test_where_no_metric_is_given_the_judged_share_decides_and_then_wins() -> None:
    kept = [one(0, kept=Figure(0.8)), one(1, kept=Figure(0.7), win_rate=Figure(0.9))]
    won = [one(i, win_rate=Figure(v)) for i, v in enumerate((0.2, 0.6, 0.4))]
    for rounds, number in ((kept, 0), (won, 1), ([one(0), one(1)], 1)):
        found = best(rounds)
        assert found is not None and found.round == number
    assert best([]) is None


@pytest.mark.parametrize(
    ("rates", "number"),
    [((0.667, 0.333, 0.667), 0), ((0.6, 0.333, 0.7), 2), ((0.6, 0.3, 0.45, 0.9), 3),
     ((0.6, 1.0, 0.0), 1), ((0.6, 0.45, None), 0), ((0.6, 0.4, 0.6, 0.6), 3)],
)  # fmt: skip
def test_wins_over_the_round_before_are_chained_to_wins_over_the_best_one(
    rates: tuple[float | None, ...], number: int
) -> None:
    """Winning against a round that had lost to the best one is not yet winning against that."""
    found = best([one(i, win_rate=None if v is None else Figure(v)) for i, v in enumerate(rates)])
    assert found is not None and found.round == number


def test_a_figure_that_is_no_number_is_none() -> None:
    assert Figure.of(math.nan, 0.1, 0.2) is None
    assert Figure.of(0.5, math.nan, 0.6) == Figure(0.5, None, 0.6)
