"""Which topics the prompts are about: a map of them in embedding space, and how even it is.

    prompts → [topics] → gaps → sample → …

A topic is a region: a cell of rlaif/cells.py. Regions have no names; their most typical prompts,
those nearest to the centre, speak for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from rlaif.cells import Cells, Vectors, fit_cells
from rlaif.entropy import Evenness, evenness
from rlaif.errors import DataError
from rlaif.records import Drop

NO_VECTOR = "no embedding"
"""Why a prompt is on no map: it is empty, or its embedding is not finite."""

Standing = Literal["over", "even", "under"]


@dataclass(frozen=True, slots=True)
class Region:
    """One region of the map.

    Attributes:
        cell: its number among the cells.
        count: prompts in it.
        share: of all prompts.
        low, high: the share's 95 % interval (Wilson).
        expected: the share it should have: the anchors', or an even one.
        typical: the prompts nearest to its centre; the anchors' where it has no prompt.
    """

    cell: int
    count: int
    share: float
    low: float
    high: float
    expected: float
    typical: tuple[str, ...]

    @property
    def standing(self) -> Standing:
        """Over- or under-filled where the interval lies clear of what is expected."""
        if self.low > self.expected:
            return "over"
        return "under" if self.high < self.expected else "even"

    @property
    def ratio(self) -> float:
        """Its share in terms of the expected one; infinite where nothing is expected."""
        if self.expected:
            return self.share / self.expected
        return math.inf if self.count else 1.0


@dataclass(frozen=True, slots=True)
class TopicMap:
    """Prompts over regions.

    Attributes:
        cells: the regions.
        evenness: normalised topic entropy, 0 (one region) to 1 (all alike).
        anchors: the same of the anchors, where there are any.
        regions: all of them, by cell.
        place: [prompts] the cell of each; -1 where it has no embedding.
        drops: the prompts that have none.
    """

    cells: Cells
    evenness: Evenness
    anchors: Evenness | None
    regions: tuple[Region, ...]
    place: NDArray[np.intp]
    drops: tuple[Drop, ...]

    @property
    def over(self) -> tuple[Region, ...]:
        """Regions with more prompts than they should have, the fullest first."""
        found = (r for r in self.regions if r.standing == "over")
        return tuple(sorted(found, key=lambda r: (-r.ratio, r.cell)))

    @property
    def under(self) -> tuple[Region, ...]:
        """Regions with fewer prompts than they should have, the emptiest first."""
        found = (r for r in self.regions if r.standing == "under")
        return tuple(sorted(found, key=lambda r: (r.ratio, -r.expected, r.cell)))


def topic_map(
    prompts: Sequence[str],
    vectors: Vectors,
    cells: Cells | int,
    *,
    anchors: Sequence[str] = (),
    anchor_vectors: Vectors | None = None,
    typical: int = 3,
    seed: int = 0,
) -> TopicMap:
    """Where the prompts lie.

    Args:
        prompts: their texts.
        vectors: [prompts, width] their embeddings; a row of zeros, or not finite, is none.
        cells: the regions; or how many, to be fitted on the anchors if there are any, else on the
            prompts themselves, whose map then cannot show a region that they lack.
        anchors: texts whose shares are what is expected; without any, each region's is the same.
        anchor_vectors: [anchors, width].
        typical: prompts that speak for a region.
        seed: of the cells and the interval.

    Raises:
        DataError: texts and vectors of different number; embeddings of different width; more cells
            than different texts; no prompt with an embedding.
    """
    usable = _checked(prompts, vectors, "prompts")
    own = [text for text, ok in zip(prompts, usable, strict=True) if ok], vectors[usable]
    gold = _anchors(anchors, anchor_vectors, vectors.shape[1])
    if isinstance(cells, int):
        cells = fit_cells((gold or own)[1], cells, seed)
    place = np.full(len(prompts), -1, np.intp)
    place[usable] = cells.of(own[1])
    counts = np.bincount(place[usable], minlength=len(cells)).astype(np.int64)
    expected = np.ones(len(cells), np.int64) if gold is None else cells.counts(gold[1])
    shares = expected / expected.sum()
    names = _names(own, gold, cells, typical)
    return TopicMap(
        cells,
        evenness(counts, seed),
        None if gold is None else evenness(expected, seed),
        tuple(_region(i, counts, shares[i], names[i]) for i in range(len(cells))),
        place,
        tuple(Drop(str(i), "topics", NO_VECTOR) for i in np.flatnonzero(~usable)),
    )


def with_vector(vectors: Vectors) -> NDArray[np.bool_]:
    """[n] which rows are embeddings at all: finite, and not all zeros."""
    return np.asarray(np.isfinite(vectors).all(axis=1) & (vectors != 0).any(axis=1))


def to_centre(vectors: Vectors, place: NDArray[np.intp], cells: Cells) -> NDArray[np.float32]:
    """[n] the cosine of each unit vector to the centre of the cell it lies in."""
    unit = cells.centres / np.linalg.norm(cells.centres, axis=1, keepdims=True).clip(min=1e-12)
    found: NDArray[np.float32] = np.einsum("nd,nd->n", vectors, unit[place])
    return found


def _names(
    own: tuple[list[str], Vectors],
    gold: tuple[list[str], Vectors] | None,
    cells: Cells,
    most: int,
) -> list[tuple[str, ...]]:
    """What speaks for each cell: its own prompts, or the anchors' where it has none."""
    found = _typical(*own, cells, most)
    if gold is None:
        return found
    return [
        mine or theirs for mine, theirs in zip(found, _typical(*gold, cells, most), strict=True)
    ]


def _typical(
    texts: Sequence[str], vectors: Vectors, cells: Cells, most: int
) -> list[tuple[str, ...]]:
    """For each cell its different texts nearest to the centre."""
    place = cells.of(vectors)
    found: list[dict[str, None]] = [{} for _ in range(len(cells))]
    for row in np.argsort(-to_centre(vectors, place, cells), kind="stable"):
        if len(found[place[row]]) < most:
            found[place[row]][texts[row]] = None
    return [tuple(names) for names in found]


def _region(
    cell: int, counts: NDArray[np.int64], expected: float, typical: tuple[str, ...]
) -> Region:
    count, rows = int(counts[cell]), int(counts.sum())
    between = binomtest(count, rows).proportion_ci(method="wilson")
    return Region(
        cell, count, count / rows, float(between.low), float(between.high), float(expected), typical
    )


def _checked(texts: Sequence[str], vectors: Vectors, what: str) -> NDArray[np.bool_]:
    """Which rows can be used.

    Raises:
        DataError: the numbers differ, or none can.
    """
    if vectors.ndim != 2 or len(texts) != len(vectors):
        raise DataError(
            f"{len(texts)} {what}, and embeddings of shape {vectors.shape}",
            mend="give one row for each text",
        )
    usable = with_vector(vectors)
    if not usable.any():
        raise DataError(
            f"none of the {len(texts)} {what} has an embedding",
            mend="give texts that are not empty",
        )
    return usable


def _anchors(
    texts: Sequence[str], vectors: Vectors | None, width: int
) -> tuple[list[str], Vectors] | None:
    if vectors is None:
        return None
    usable = _checked(texts, vectors, "anchors")
    if vectors.shape[1] != width:
        raise DataError(
            f"prompts are embedded at width {width}, anchors at width {vectors.shape[1]}",
            mend="embed both with the same model",
        )
    return [text for text, ok in zip(texts, usable, strict=True) if ok], vectors[usable]
