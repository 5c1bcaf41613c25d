"""A linear classifier as a JSON file, no pickle. Under filters/fluency.py and filters/density.py.

Its weights are for the vectors of one embedding model; with another they would still give numbers,
and so it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.errors import DataError
from rlaif.run_folder import os_errors

_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Log-odds that are linear in the features.

    Attributes:
        weights: [features].
        bias: log-odds of a row of zeros.
        embedder: fingerprint of the model whose vectors are among the features; "" is any.
        more: what else the classifier needs to know; JSON-able.
    """

    weights: NDArray[np.float64]
    bias: float
    embedder: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, features: Any) -> NDArray[np.float64]:
        """[rows] log-odds of features [rows, features], dense or sparse.

        Raises:
            DataError: another number of features.
        """
        if features.shape[1] != len(self.weights):
            raise DataError(
                f"{features.shape[1]} features a row; the classifier was fitted on "
                f"{len(self.weights)}",
                mend="embed with the model that it was fitted with",
            )
        found: NDArray[np.float64] = np.asarray(features @ self.weights + self.bias, float)
        return found

    def save(self, file: Path) -> None:
        """Write the classifier as JSON.

        Raises:
            JournalError: it cannot be written.
        """
        told = {
            "version": _VERSION, "embedder": self.embedder, "bias": self.bias,
            "weights": self.weights.tolist(), "more": dict(self.more),
        }  # fmt: skip
        with os_errors(file, "written"):
            file.write_text(json.dumps(told, ensure_ascii=False) + "\n", encoding="utf-8")


def load_linear(file: Path, embedder: str) -> Linear:
    """Read a classifier that `Linear.save` wrote.

    Args:
        file: to read.
        embedder: fingerprint of the model that gives the vectors now.

    Raises:
        DataError: no such file, not a classifier, or one for another embedding model.
    """
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        found = Linear(
            np.array(read["weights"], float), float(read["bias"]), str(read["embedder"]),
            dict(read["more"]),
        )  # fmt: skip
        sound = read["version"] == _VERSION and found.weights.ndim == 1
    except FileNotFoundError as error:
        raise DataError("no such file", file=file, mend="fit the classifier first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("not a classifier", file=file, mend="fit it anew") from error
    if not sound or not np.isfinite(found.weights).all():
        raise DataError("not a classifier of this version", file=file, mend="fit it anew")
    if found.embedder not in ("", embedder):
        raise DataError(
            "fitted with another embedding model", file=file, key="embedder", value=found.embedder,
            mend=f"fit it anew with {embedder}, or embed with the model that it was fitted with",
        )  # fmt: skip
    return found


def fit_linear(
    features: Any, good: NDArray[np.bool_], *, strength: float, embedder: str = ""
) -> Linear:
    """Logistic regression, both classes of equal weight.

    Args:
        features: [rows, features], dense or sparse.
        good: [rows] where log-odds should be positive.
        strength: the inverse of the L2 penalty, scikit-learn's C.
        embedder: as of `Linear`.

    Raises:
        DataError: one class alone.
    """
    from sklearn.linear_model import LogisticRegression

    if good.all() or not good.any():
        raise DataError("examples of one kind alone", mend="give examples of both")
    fitted = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
    fitted.fit(features, good)
    return Linear(fitted.coef_[0].astype(float), float(fitted.intercept_[0]), embedder)
