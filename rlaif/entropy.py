"""How evenly counts are spread: Shannon's entropy, with what a small sample hides.

Under prompts/topics.py (prompts over regions) and evaluate/collapse.py (tokens over a vocabulary).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaif.errors import DataError

_RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Evenness:
    """An entropy as a share, 0 to 1, of that of a uniform spread: H / log(cells).

    Attributes:
        value: corrected for the size of the sample (`miller_madow`), at most 1.
        low, high: its 95 % interval, by the bootstrap.
        plain: the entropy of the counts as they are; too low where they are few.
        rows: how many were counted.
    """

    value: float
    low: float
    high: float
    plain: float
    rows: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.rows})"


def entropy(counts: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """Shannon's entropy of counts or weights, in nats; NaN without any."""
    total = counts.sum()
    if total <= 0:
        return math.nan
    shares = counts[counts > 0] / total
    return max(0.0, float(-(shares * np.log(shares)).sum()))


def miller_madow(counts: NDArray[np.int64]) -> float:
    """The entropy in nats, + (cells seen - 1) / (2 rows) for its first-order bias (Miller 1955).

    A sample of n rows has on average that much less entropy than what it was drawn from.
    """
    total = int(counts.sum())
    if not total:
        return math.nan
    return entropy(counts) + (int((counts > 0).sum()) - 1) / (2 * total)


def evenness(counts: NDArray[np.int64], seed: int = 0) -> Evenness:
    """How evenly rows are spread over cells.

    Args:
        counts: [cells] rows in each.
        seed: of the bootstrap, whose interval is centred on the corrected value: a resample has
            less entropy than its sample, as that has less than what it was drawn from. It holds
            the truth 93 times in 100 at 25 rows a cell, and 86 times at two rows a cell.

    Raises:
        DataError: fewer than two cells, or no rows: the share does not exist.
    """
    if len(counts) < 2:
        raise DataError("evenness is over two cells or more", key="cells", value=len(counts))
    rows = int(counts.sum())
    if not rows:
        raise DataError("no row lies in any cell", mend="give texts that can be embedded")
    most, value = math.log(len(counts)), miller_madow(counts)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(rows, counts / rows, _RESAMPLES)
    found = _miller_madow_rows(drawn)
    low, high = np.quantile(found, (0.025, 0.975)) - found.mean() + value
    value, low, high = (min(1.0, max(0.0, float(x) / most)) for x in (value, low, high))
    return Evenness(value, low, high, min(1.0, entropy(counts) / most), rows)


def _miller_madow_rows(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[samples] `miller_madow` of each row of [samples, cells]."""
    rows = counts.sum(axis=1)
    shares = counts / rows[:, None]
    plain = -(shares * np.log(np.where(counts, shares, 1.0))).sum(axis=1)
    return np.asarray(plain + ((counts > 0).sum(axis=1) - 1) / (2 * rows))
