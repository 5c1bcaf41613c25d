"""Near-copies: of each cluster of texts that say nearly the same, the first stays.

Beside filters/anchor.py; prompts/topics.py and evaluate/collapse.py ask the same of prompts and of
whole data sets. Rows are taken in their order: one is dropped if an earlier one that was kept is
within the threshold. So no two kept rows are near-copies, and no row is dropped for one that is
not there any more.

Up to 30,000 rows the answer is exact; beyond, a row is compared with what was kept in the FAISS
cells that it is nearest to, and the few near-copies that lie elsewhere stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlaif.anchor_index import drawn, inverted_file
from rlaif.errors import RecipeError
from rlaif.nearest import Vectors, check_vectors, nearest

_EXACT = 30_000  # rows that are all compared with each other
_BLOCK = 1024  # rows that are compared with each other at once
_NOISE = 1e-6  # of a cosine in float32: equal rows are near-copies at a threshold of 1
_FOUND = 0.99  # share of near-copies in the cells that are looked into
_MOST_PROBES = 64
_TRIED = 1024  # rows on which the number of cells to look into is found


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """Which rows stay, and which are near-copies.

    Attributes:
        keep: [n] where a row stays.
        of: [n] the most similar earlier row that stays, for a near-copy; -1 where a row stays.
        similarity: [n] cosine of the two; NaN where a row stays.
    """

    keep: NDArray[np.bool_]
    of: NDArray[np.int64]
    similarity: Vectors


def near_duplicates(vectors: Vectors, threshold: float = 0.92, seed: int = 0) -> Duplicates:
    """Which rows are near-copies of earlier ones that stay.

    Beyond the vectors it needs memory for those that stay: up to 30,000 rows twice, beyond once or
    twice in float16 (0.8 to 1.6 GB for a million rows of width 384). Two embeddings of one text
    differ by about 1e-3 between batches in bfloat16, so a pair that close to the threshold may
    fall on either side of it.

    Args:
        vectors: [n, width] unit vectors; a zero row, which is no text, is no copy of anything.
        threshold: the least cosine of a near-copy, above 0 to 1.
        seed: of the cells, beyond 30,000 rows.

    Raises:
        DataError: no table, or a number that is not finite.
        RecipeError: a threshold that is no such cosine.
    """
    if not 0 < threshold <= 1:
        raise RecipeError(
            "a cosine is wanted", key="threshold", value=threshold, mend="give one above 0, up to 1"
        )
    check_vectors(vectors)
    least = threshold - _NOISE
    kept: _Kept = _All() if len(vectors) <= _EXACT else _Near.of(vectors, threshold, seed)
    return _greedy(vectors, least, kept)


class _Kept(Protocol):
    """The rows that stay, so far."""

    def add(self, vectors: Vectors, numbers: NDArray[np.int64]) -> None:
        """These stay too."""

    def nearest(self, vectors: Vectors) -> tuple[Vectors, NDArray[np.int64]]:
        """[n] the greatest cosine of each with one that stays, and its number."""


def _greedy(vectors: Vectors, least: float, kept: _Kept) -> Duplicates:
    keep = np.ones(len(vectors), bool)
    of = np.full(len(vectors), -1, np.int64)
    similarity = np.full(len(vectors), np.nan, np.float32)
    for at in range(0, len(vectors), _BLOCK):
        block = np.array(vectors[at : at + _BLOCK], np.float32)
        here = slice(at, at + len(block))
        best, of[here] = kept.nearest(block)
        keep[here] = _among(block, least, best, of[here], at)
        similarity[here] = best
        of[here][keep[here]], similarity[here][keep[here]] = -1, np.nan
        stays = np.flatnonzero(keep[here])
        kept.add(block[stays], at + stays)
    return Duplicates(keep, of, similarity)


def _among(
    block: Vectors, least: float, best: Vectors, of: NDArray[np.int64], start: int
) -> NDArray[np.bool_]:
    """[n] which rows of a block stay; `best` and `of` learn of nearer ones within the block."""
    products = np.tril(block @ block.T, -1)
    keep = best < least
    for row in np.flatnonzero((products >= least).any(axis=1)):
        there = np.where(keep[:row], products[row, :row], -np.inf)
        nearer = int(there.argmax())
        if there[nearer] >= least and there[nearer] > best[row]:
            best[row], of[row], keep[row] = there[nearer], start + nearer, False
    return keep


class _All:
    """Compared with every row that stays."""

    def __init__(self) -> None:
        self._vectors: list[Vectors] = []
        self._numbers: list[NDArray[np.int64]] = []

    def add(self, vectors: Vectors, numbers: NDArray[np.int64]) -> None:
        """These stay too."""
        self._vectors.append(vectors)
        self._numbers.append(numbers)

    def nearest(self, vectors: Vectors) -> tuple[Vectors, NDArray[np.int64]]:
        """The greatest cosine of each with one that stays, and its number."""
        if not self._vectors:
            return _none(len(vectors))
        found = nearest(vectors, np.concatenate(self._vectors))
        return found.similarity[:, 0], np.concatenate(self._numbers)[found.index[:, 0]]


class _Near:
    """Compared with the rows that stay in the cells that a row is nearest to."""

    def __init__(self, index: Any, vectors: Vectors) -> None:
        self._index, self._vectors = index, vectors
        self._numbers = np.zeros(len(vectors), np.int64)

    @classmethod
    def of(cls, vectors: Vectors, threshold: float, seed: int) -> _Near:
        """Cells of these vectors, without any in them yet."""
        import faiss

        cells = inverted_file(vectors, seed)
        index = faiss.IndexIVFScalarQuantizer(
            cells, vectors.shape[1], cells.ntotal, faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT, False,
        )  # fmt: skip
        index.train(drawn(vectors, 1, seed))  # float16 needs none, but asks for it
        index.nprobe = _probes(cells, drawn(vectors, _TRIED, seed), threshold, seed)
        return cls(index, vectors)

    def add(self, vectors: Vectors, numbers: NDArray[np.int64]) -> None:
        """These stay too."""
        self._numbers[self._index.ntotal :][: len(numbers)] = numbers
        self._index.add(vectors)

    def nearest(self, vectors: Vectors) -> tuple[Vectors, NDArray[np.int64]]:
        """The greatest cosine of each with one that was found, and its number."""
        best, numbers = _none(len(vectors))
        place = self._index.search(vectors, 1)[1][:, 0]
        found = place >= 0
        numbers[found] = self._numbers[place[found]]
        others = self._vectors[numbers[found]]
        best[found] = np.einsum("rw,rw->r", vectors[found], others)  # float16 is not exact
        return best, numbers


def _none(count: int) -> tuple[Vectors, NDArray[np.int64]]:
    return np.full(count, -np.inf, np.float32), np.full(count, -1, np.int64)


def _probes(cells: Any, vectors: Vectors, threshold: float, seed: int) -> int:
    """How many cells to look into, so that nearly all near-copies are in one of them.

    Each vector is turned towards another one until it is a near-copy that barely counts; the
    answer is how far down its list of cells that copy's cell is.
    """
    other = np.random.default_rng(seed).permutation(vectors)
    other = other - (other * vectors).sum(1, keepdims=True) * vectors
    other /= np.maximum(np.linalg.norm(other, axis=1, keepdims=True), 1e-6)
    copies = threshold * vectors + np.sqrt(1 - threshold**2) * other
    most = min(_MOST_PROBES, cells.ntotal)
    looked = cells.search(copies.astype(np.float32), most)[1]
    same = looked == cells.search(vectors, 1)[1]
    rank = np.where(same.any(axis=1), same.argmax(axis=1), most - 1)
    return int(np.quantile(rank, _FOUND, method="higher")) + 1
