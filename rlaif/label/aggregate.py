"""How the principles combine: weights fitted to labelled comparisons, around the author's own.

A margin is Σ weight·gap. Where people have said which response is better on the whole, the weights
that say so too are found by logistic regression on the gaps, with a Gaussian prior at the weights
that the constitution gives: with few labels they stay there. A weight never falls to zero or below:
a principle may come to count for little, but not for its opposite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaif.constitution import Constitution
from rlaif.errors import DataError
from rlaif.label.calibrate import LEAST_ROWS

Floats = NDArray[np.float64]

_SPREAD = 1.0
"""Standard deviation of the prior, as a share of each given weight."""
_LEAST = 0.02
"""Least fitted weight, as a share of the given one."""


def fit_weights(gaps: ArrayLike, first_better: ArrayLike, given: Sequence[float]) -> Floats:
    """The weights under which the margins fit the labels best, on the scale of the given ones.

    With s the one number that fits s·given to the labels, minimises over w

        Σ log(1 + e^(-y·w·x)) + Σ (w/(s·given) - 1)² / 2

    and returns w/s, so that a margin keeps its meaning in nats.

    Args:
        gaps: by how much the first response is better under each principle, in nats, shape
            (n, p); 0 where the judge did not decide.
        first_better: whether it is the better one on the whole, shape (n,); no ties.
        given: the constitution's weights, p of them.

    Raises:
        DataError: fewer than `LEAST_ROWS` rows.
    """
    from scipy.optimize import minimize, minimize_scalar

    x = np.asarray(gaps, float) * np.where(np.asarray(first_better, bool), 1.0, -1.0)[:, None]
    prior = np.asarray(given, float)
    if len(x) < LEAST_ROWS:
        raise DataError(
            "too few labelled rows to fit weights on", key="rows", value=len(x),
            mend=f"give at least {LEAST_ROWS} comparisons about the whole constitution",
        )  # fmt: skip

    def loss(weights: Floats) -> float:
        return float(np.logaddexp(0.0, -(x @ weights)).sum())

    found = minimize_scalar(
        lambda log_s: loss(np.exp(log_s) * prior), bounds=(-7.0, 3.0), method="bounded"
    )
    unit = np.exp(found.x) * prior  # the prior's centre: what a share of 1 means

    def objective(share: Floats) -> tuple[float, Floats]:
        off = share - 1.0
        slope = -(x * unit).T @ _sigmoid(-(x @ (share * unit)))
        value = loss(share * unit) + float(off @ off) / (2 * _SPREAD**2)
        return value, slope + off / _SPREAD**2

    best = minimize(
        objective, np.ones_like(prior), jac=True, method="L-BFGS-B",
        bounds=[(_LEAST, None)] * len(prior),
    )  # fmt: skip
    return np.asarray(best.x * prior, float)


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -x))


def with_weights(constitution: Constitution, weights: Mapping[str, float]) -> Constitution:
    """The constitution with these weights, by principle fingerprint, in the place of its own."""
    principles = tuple(
        p.model_copy(update={"weight": weights.get(p.fingerprint, p.weight)})
        for p in constitution.principles
    )
    return constitution.model_copy(update={"principles": principles})
