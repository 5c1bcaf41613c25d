"""How sure a measured share is: Wilson's interval for rows, the bootstrap for groups of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of rows with its 95 % interval; NaN without rows."""

    value: float
    low: float
    high: float
    rows: int

    def __str__(self) -> str:
        if not self.rows:
            return "–"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.rows})"


def rate(outcomes: Sequence[bool]) -> Rate:
    """The share of true outcomes, with Wilson's 95 % score interval (Wilson 1927)."""
    n = len(outcomes)
    if not n:
        return Rate(math.nan, math.nan, math.nan, 0)
    p = sum(outcomes) / n
    middle, spread = p + _Z**2 / (2 * n), _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    scale = 1 + _Z**2 / n
    return Rate(p, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale), n)


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    groups: Sequence[str],
    resamples: int = 400,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % percentile interval of any statistic, resampling whole groups (Efron 1979).

    Args:
        statistic: of row numbers, which may repeat.
        groups: what each row belongs to; rows of one prompt are not independent.
        resamples: how many.
        seed: of the draws.
    """
    _, group = np.unique(np.array(groups), return_inverse=True)
    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)] if len(groups) else []
    if not members:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    found = [
        statistic(np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))]))
        for _ in range(resamples)
    ]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)
