"""Intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.intervals import bootstrap, rate


def test_wilsons_interval_is_the_textbooks():
    found = rate([True] * 9 + [False])
    assert (found.value, found.rows) == (0.9, 10)
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_the_share_lies_in_its_interval(outcomes):
    found = rate(outcomes)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_perfect_on_three_rows_proves_little():
    assert rate([True] * 3).low < 0.5


def test_no_rows_no_rate():
    assert math.isnan(rate([]).value) and str(rate([])) == "–"


def test_rows_of_one_prompt_count_as_one():
    values = np.repeat(np.random.default_rng(0).random(20), 50)
    groups = [str(i // 50) for i in range(1000)]
    low, high = bootstrap(lambda rows: float(values[rows].mean()), groups)
    apart = bootstrap(lambda rows: float(values[rows].mean()), [str(i) for i in range(1000)])
    assert high - low > 3 * (apart[1] - apart[0])
    assert all(math.isnan(x) for x in bootstrap(lambda rows: 0.0, []))


def test_the_interval_holds_the_mean_and_narrows_with_more_groups():
    rng = np.random.default_rng(0)
    few, many = rng.random(20), rng.random(2000)

    def interval(values):
        return bootstrap(
            lambda rows: float(values[rows].mean()), [str(i) for i in range(len(values))]
        )

    low, high = interval(few)
    assert low < few.mean() < high
    narrow = interval(many)
    assert narrow[1] - narrow[0] < (high - low) / 3
