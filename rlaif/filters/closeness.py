"""How near a text is to the anchors, for telling new content from drift. Under filters/anchor.py.

The plain cosine to the nearest anchor is drawn by how a thing is asked as much as by what it is
about: "What is the difference between …" is near to "What is the difference between …". So

- space is scaled so that directions in which neighbouring anchors differ count little
  (within-class covariance normalisation, Hatch et al. 2006, with an anchor's neighbours for its
  class),
- a few anchors are asked and not one, and
- where these anchors lie close together, more is expected (as in CSLS, Conneau et al. 2018,
  arXiv 1710.04087).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.embed import Vectors
from rlaif.errors import DataError
from rlaif.nearest import check_vectors, nearest

_ASKED = 5  # anchors that decide how near a text is
_CLASS = 20  # neighbours that stand for the topic of an anchor
_ROUND = 0.1  # of the scatter is taken as equal in all directions; more than a few anchors tell
_EXPECTED = 0.5  # of what the anchors nearby have among themselves
_FOLDS = 10
FEWEST = 20
"""Anchors that a gauge needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Gauge:
    """What measures closeness to one set of anchors.

    Attributes:
        mean: [width] of the anchors.
        scale: [width, width] what differences to the mean are multiplied with.
        scaled: [anchors, width] the anchors on that scale, of length 1.
        own: [anchors] mean similarity of each to the few nearest others.
    """

    mean: Vectors
    scale: Vectors
    scaled: Vectors
    own: NDArray[np.float64]

    def __call__(self, vectors: Vectors) -> NDArray[np.float64]:
        """[n] closeness of vectors [n, width]: about 0 far off, at most about 0.5.

        Raises:
            DataError: another width, or a number that is not finite.
        """
        check_vectors(vectors, self.scaled.shape[1])
        found = nearest(_unit((vectors - self.mean) @ self.scale), self.scaled, _ASKED)
        expected = self.own[found.index].mean(1)
        near: NDArray[np.float64] = found.similarity.mean(1) - _EXPECTED * expected
        return near


def fit_gauge(anchors: Vectors) -> Gauge:
    """The gauge of anchors [n, width].

    Raises:
        DataError: fewer than 20, or a number that is not finite.
    """
    check_vectors(anchors, what="anchors")
    if len(anchors) < FEWEST:
        raise DataError(
            "too few anchors to measure closeness to", value=len(anchors),
            mend=f"give at least {FEWEST} different ones; some hundreds are usual",
        )  # fmt: skip
    mean = anchors.mean(0)
    scale = _scale(anchors, _unit(anchors - mean))
    scaled = _unit((anchors - mean) @ scale)
    own = nearest(scaled, scaled, _ASKED, leave_out_self=True).similarity.mean(1)
    return Gauge(mean, scale, scaled, own.astype(float))


def _scale(anchors: Vectors, centred: Vectors) -> Vectors:
    """[width, width] the inverse square root of the scatter of anchors about their neighbours."""
    k = min(_CLASS, len(anchors) - 1)
    classes = nearest(centred, centred, k, leave_out_self=True).index
    within = anchors - np.stack([anchors[row].mean(0) for row in classes])
    scatter = (within.T @ within).astype(float) / len(anchors)
    width = len(scatter)
    level = np.trace(scatter) / width
    if level < 1e-12:  # nothing differs, so nothing is to be scaled
        return np.eye(width, dtype=np.float32)
    scatter = (1 - _ROUND) * scatter + _ROUND * level * np.eye(width)
    values, axes = np.linalg.eigh(scatter)
    found: Vectors = (axes / np.sqrt(values / level) @ axes.T).astype(np.float32)
    return found


def held_out(anchors: Vectors, groups: NDArray[np.intp], seed: int = 0) -> NDArray[np.float64]:
    """[n] closeness of anchors to the others, tenth by tenth, by gauges that did not see them.

    Args:
        anchors: [n, width].
        groups: [n] anchors of one group are held out together.
        seed: of the folds.

    Raises:
        DataError: fewer than 20 anchors would be left.
    """
    found = np.full(len(anchors), np.nan)
    for out in _folds(groups, seed):
        found[out] = fit_gauge(anchors[~out])(anchors[out])
    return found


def _folds(groups: NDArray[np.intp], seed: int) -> Iterator[NDArray[np.bool_]]:
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    for part in np.array_split(names, min(_FOLDS, len(names))):
        yield np.isin(groups, part)


def _unit(vectors: NDArray[Any]) -> Vectors:
    """Of length 1; a vector of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    return found
