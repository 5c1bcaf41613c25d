from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from rlaif.errors import DataError
from rlaif.filters.drift_null import Table, crowding, divergences, outcome

ROWS = 120
SYNTHETIC = np.arange(ROWS) >= 50


def table(rng: np.random.Generator, tokens: int = 1, columns: int = 8) -> Table:
    """Texts of so many tokens, each text with one token again and again."""
    counts = np.zeros((ROWS, columns), np.float32)
    counts[np.arange(ROWS), rng.integers(0, columns, ROWS)] = tokens
    return csr_matrix(counts)


def test_many_statistics_together_keep_the_level_of_one() -> None:
    def alarm(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        tables = [(table(rng), [divergences]) for _ in range(15)]
        return outcome(tables, SYNTHETIC, permutations=119, resamples=0, seed=seed).alarm

    assert sum(alarm(seed) for seed in range(60)) <= 6


def test_a_text_that_repeats_itself_is_one_observation() -> None:
    def p_value(seed: int) -> float:
        tables = [(table(np.random.default_rng(seed), tokens=50), [divergences])]
        return outcome(tables, SYNTHETIC, permutations=59, resamples=0).p_value

    assert np.mean([p_value(seed) for seed in range(40)]) == pytest.approx(0.5, abs=0.15)


def test_an_alarm_is_a_small_p_value_and_the_reverse() -> None:
    counts = np.eye(2, dtype=np.float32)
    for shift in range(30, 100, 2):
        rows = csr_matrix(counts[(np.arange(ROWS) >= shift).astype(int)])
        found = outcome([(rows, [divergences, crowding])], SYNTHETIC, resamples=0)
        assert found.alarm == (found.p_value <= 0.025)


def test_crowding_is_the_excess_of_the_fullest_column_in_deviations() -> None:
    human, synthetic = np.array([30.0, 10, 10]), np.array([10.0, 30, 10])
    assert crowding(human, synthetic) == pytest.approx((30 - 20) / np.sqrt(40 / 4))


@pytest.mark.parametrize(("level", "fewest"), [(0.025, 40), (0.05, 20), (0.01, 100)])
def test_so_many_relabellings_as_the_error_asks_for_are_enough(level: float, fewest: int) -> None:
    tables = [(table(np.random.default_rng(0)), [divergences])]
    with pytest.raises(DataError, match=f"permutations: too few .* ask for {fewest} or more"):
        outcome(tables, SYNTHETIC, permutations=fewest // 2, level=level, resamples=0)
    outcome(tables, SYNTHETIC, permutations=fewest, level=level, resamples=0)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, float("nan")])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(DataError, match="level: must be between 0 and 1"):
        outcome([(table(np.random.default_rng(0)), [divergences])], SYNTHETIC, level=level)
