"""From evidence to confidence: how often a label for which a judge was this sure is right.

    labelled comparisons → judge → evidence, right or wrong → Curve → confidence of new labels

What is calibrated is the label of a pair, after its principles have been combined: a label is right
if gold has the chosen one as the better; where gold has a tie it is wrong. The evidence for a label
is the size of its margin in nats, or several such numbers where more than one model was asked.

Three curves: temperature scaling, σ(a·x) (Guo et al. 2017, arXiv 1706.04599); Platt scaling,
σ(a·x + b) (Platt 1999), for one or more numbers; isotonic regression (Zadrozny and Elkan 2002),
which follows any shape and needs many more rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from rlaif.errors import DataError
from rlaif.intervals import rate
from rlaif.records import fingerprint, sigmoid
from rlaif.strict_model import Many, StrictModel, Text

Floats = NDArray[np.float64]
Way = Literal["temperature", "platt", "isotonic"]

FOLDS = 5
LEAST_ROWS = 50
"""Fewer labelled rows say too little about confidence to fit anything to them."""


class Curve(StrictModel, error=DataError):
    """The confidence that evidence deserves.

    Attributes:
        way: what was fitted.
        slopes: of each number of evidence, per nat; isotonic: nothing.
        intercept: in nats; temperature and isotonic: 0.
        ceiling: the most that any evidence is worth. Where gold has ties, or is itself wrong now
            and then, a curve would promise more at its end than the rows there have kept.
        knots: isotonic: (evidence, confidence), rising in both, straight lines between them and
            level outside; else nothing.
        rows: how many labelled rows it was fitted on.
    """

    way: Way
    slopes: Many[float] = ()
    intercept: float = 0.0
    ceiling: Annotated[float, Field(gt=0, le=1)] = 1.0
    knots: Many[Annotated[tuple[float, float], Field(strict=False)]] = ()
    rows: Annotated[int, Field(ge=0)]

    def confidence(self, *evidence: float) -> float:
        """The probability, 0 to 1, that a label with this evidence, in nats, is right."""
        if self.way == "isotonic":
            xs, ys = zip(*self.knots, strict=True)
            return min(self.ceiling, float(np.interp(evidence[0], xs, ys)))
        terms = (slope * x for slope, x in zip(self.slopes, evidence, strict=True))
        return min(self.ceiling, sigmoid(math.fsum(terms) + self.intercept))


class Calibration(StrictModel, error=DataError):
    """What was learned of one judge on labelled comparisons, as a file.

    Attributes:
        judge: `Method.fingerprint` of the judge; another judge needs another calibration.
        mode: how it was asked.
        data: fingerprint of the comparisons that it was fitted on.
        pair: for the margin of a pair, all principles together.
        principles: for the gap under one principle, by the principle's fingerprint; those with
            enough labelled rows of their own.
        weights: fitted weights by the principle's fingerprint; empty: the constitution's hold.
    """

    judge: Text
    mode: Literal["pointwise", "pairwise", "rating"]
    data: Text
    pair: Curve
    principles: dict[str, Curve] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Names everything that a calibrated label depends on besides the judge's verdicts."""
        return fingerprint(self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """The calibration in a file that `save` wrote.

        Raises:
            DataError: it cannot be read, or is no calibration.
        """
        try:
            data = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot be read ({error})", file=path, mend="fit it anew: rlaif scorecard"
            ) from error
        try:
            return cls(**data)
        except (DataError, TypeError) as error:
            raise DataError(
                f"is no calibration ({error})", file=path, mend="fit it anew: rlaif scorecard"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        text = json.dumps(self.model_dump(mode="json"), indent=2)
        Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")


def fit(evidence: ArrayLike, right: ArrayLike, way: Way) -> Curve:
    """The curve that fits labelled rows best, by likelihood (isotonic: by squares).

    Each row counts as right with Platt's targets, (n + 1)/(n + 2) or 1/(m + 2), so that a judge
    that was never wrong on a few rows is not taken as one that never will be.

    Args:
        evidence: in nats, shape (n,) or, with Platt, (n, k).
        right: whether gold confirms each label, shape (n,).
        way: what to fit.

    Raises:
        DataError: fewer than `LEAST_ROWS` rows.
        ValueError: several numbers of evidence, and not Platt.
    """
    x, ok = _columns(evidence), np.asarray(right, bool)
    if len(ok) < LEAST_ROWS:
        raise DataError(
            "too few labelled rows to calibrate on", key="rows", value=len(ok),
            mend=f"give at least {LEAST_ROWS} comparisons about the whole constitution that get a "
            "label, or do not calibrate",
        )  # fmt: skip
    if x.shape[1] > 1 and way != "platt":
        raise ValueError(f"{way} takes one number of evidence")
    targets = np.where(ok, (ok.sum() + 1) / (ok.sum() + 2), 1 / ((~ok).sum() + 2))
    curve = _isotonic(x[:, 0], targets) if way == "isotonic" else _logistic(x, targets, way)
    return _under_a_ceiling(curve, x, ok)


def _columns(evidence: ArrayLike) -> Floats:
    x = np.asarray(evidence, float)
    return x[:, None] if x.ndim == 1 else x


def _logistic(x: Floats, targets: Floats, way: Way) -> Curve:
    from sklearn.linear_model import LogisticRegression

    # A soft target is two rows, one right and one wrong, with the target as their weights.
    twice, labels = np.concatenate([x, x]), np.repeat([1, 0], len(x))
    weights = np.concatenate([targets, 1 - targets])
    scale = np.abs(x).max(axis=0) + 1e-12  # the solver wants numbers of about one size
    model = LogisticRegression(C=np.inf, fit_intercept=way == "platt", tol=1e-8, max_iter=1000)
    model.fit(twice / scale, labels, sample_weight=weights)
    slopes = tuple(float(s) for s in model.coef_[0] / scale)
    intercept = float(model.intercept_[0]) if way == "platt" else 0.0
    return Curve(way=way, slopes=slopes, intercept=intercept, rows=len(x))


def _under_a_ceiling(curve: Curve, x: Floats, ok: NDArray[np.bool_]) -> Curve:
    """No confidence over what the surest tenth of the rows bears out, by its 95 % interval."""
    sure = np.argsort([curve.confidence(*row) for row in x], kind="stable")[-len(x) // 10 :]
    return curve.model_copy(update={"ceiling": rate(ok[sure].tolist()).high})


def _isotonic(x: Floats, targets: Floats) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(x, targets)
    knots = zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True)
    return Curve(way="isotonic", knots=tuple(knots), rows=len(x))


def out_of_fold(evidence: ArrayLike, right: ArrayLike, groups: Sequence[str], way: Way) -> Floats:
    """Each row's confidence, by a curve that was fitted without its group.

    Args:
        evidence, right, way: as in `fit`.
        groups: what each row belongs to, n of them: rows of one prompt are not independent.

    Returns:
        Confidences, shape (n,); NaN where too little is left to fit on.
    """
    x, ok = _columns(evidence), np.asarray(right, bool)
    confidence = np.full(len(ok), np.nan)
    for fold in _folds(groups):
        rest = np.setdiff1d(np.arange(len(ok)), fold)
        if len(rest) >= LEAST_ROWS:
            curve = fit(x[rest], ok[rest], way)
            confidence[fold] = [curve.confidence(*row) for row in x[fold]]
    return confidence


def _folds(groups: Sequence[str]) -> Iterator[NDArray[np.intp]]:
    from sklearn.model_selection import GroupKFold

    count = min(FOLDS, len(set(groups)))
    if count < 2:
        return
    for _, fold in GroupKFold(count).split(np.zeros(len(groups)), groups=groups):
        yield fold


def calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> float:
    """The expected calibration error over bins of equal mass (Naeini et al. 2015; Guo et al. 2017).

    Args:
        confidence: shape (n,), 0 to 1.
        right: shape (n,).
        bins: how many; rows with the same confidence may fall on both sides of a cut.

    Returns:
        Σ share of a bin · |mean confidence - share right|, 0 to 1; NaN without rows. A perfect
        judge measures about 0.4·√(bins·p(1 - p)/n) too much.
    """
    p, ok = np.asarray(confidence, float), np.asarray(right, float)
    if not len(p):
        return math.nan
    return float(sum(abs(p[b].sum() - ok[b].sum()) for b in _equal_mass(p, bins)) / len(p))


def reliability(
    confidence: ArrayLike, right: ArrayLike, bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean confidence, share right, rows) of each bin of equal mass: a reliability diagram."""
    p, ok = np.asarray(confidence, float), np.asarray(right, float)
    return [(float(p[b].mean()), float(ok[b].mean()), len(b)) for b in _equal_mass(p, bins)]


def _equal_mass(p: Floats, bins: int) -> list[NDArray[np.intp]]:
    cuts = np.array_split(np.argsort(p, kind="stable"), bins)
    return [b for b in cuts if len(b)]
