from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.entropy import entropy, evenness, miller_madow
from rlaif.errors import DataError

COUNTS = st.lists(st.integers(0, 50), min_size=2, max_size=12).filter(any)


def counts(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@given(st.integers(2, 40), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_a_uniform_spread_is_1_and_all_in_one_cell_is_0(cells: int, each: int) -> None:
    found = evenness(np.full(cells, each))
    assert found.plain == pytest.approx(1.0) and found.value == 1.0
    alone = evenness(np.eye(cells, dtype=np.int64)[0] * each)
    assert (alone.plain, alone.value, alone.low, alone.high) == (0.0, 0.0, 0.0, 0.0)


@given(COUNTS, st.randoms())
@settings(max_examples=25, deadline=None)
def test_it_does_not_depend_on_which_cell_is_which(values: list[int], chance: object) -> None:
    mixed = values[:]
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert entropy(counts(*mixed)) == pytest.approx(entropy(counts(*values)))
    assert evenness(counts(*mixed)).value == pytest.approx(evenness(counts(*values)).value)


@given(COUNTS)
@settings(max_examples=25, deadline=None)
def test_the_interval_holds_the_value_and_all_are_shares(values: list[int]) -> None:
    found = evenness(counts(*values))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.plain <= found.value + 1e-12


def test_entropy_is_in_nats() -> None:
    assert entropy(counts(1, 1)) == pytest.approx(math.log(2))
    assert entropy(counts(1, 1, 2)) == pytest.approx(1.5 * math.log(2))


def test_the_correction_takes_most_of_a_small_samples_bias() -> None:
    shares, rng = np.full(20, 0.05), np.random.default_rng(0)
    drawn = rng.multinomial(60, shares, 300)
    plain = np.mean([entropy(row) for row in drawn]) - math.log(20)
    corrected = np.mean([miller_madow(row) for row in drawn]) - math.log(20)
    assert plain < -0.1 and abs(corrected) < 0.04


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    shares, rng = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05]), np.random.default_rng(1)
    true = -(shares * np.log(shares)).sum() / math.log(6)
    found = [evenness(row) for row in rng.multinomial(600, shares, 300)]
    assert 0.91 <= np.mean([e.low <= true <= e.high for e in found]) <= 0.99


def test_what_has_no_evenness_is_refused() -> None:
    with pytest.raises(DataError, match="two cells or more"):
        evenness(counts(3))
    with pytest.raises(DataError, match="no row lies in any cell"):
        evenness(counts(0, 0))
    assert math.isnan(entropy(counts(0))) and math.isnan(miller_madow(counts(0)))
