"""Is the synthetic distribution still the human one?

    sample → … → filter (drift) → train

Vectors or texts in, `Drift` out; it knows of no record and no run. Both samples are quantised by
the same cells (rlaif/cells.py), fitted on both together, and both are told apart only where they
differ by more than a relabelling of the same rows does (drift_null.py). drift_prune.py says which
samples to take out; drift_mauve.py has another measure of the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from rlaif.cells import Cells, fit_cells
from rlaif.embed import Embedded, Vectors
from rlaif.errors import DataError
from rlaif.filters.drift_ngrams import Tokenize, count_ngrams
from rlaif.filters.drift_null import Outcome, Statistic, Table, crowding, divergences, outcome
from rlaif.records import Drop

FEWEST = 20
"""Texts a side; of fewer nothing can be said."""

Side = Literal["human", "synthetic"]

Texts = tuple[Sequence[str], Sequence[str]]
"""The human ones, and the synthetic ones."""

_FITTED = 25  # texts a cell that the cells are fitted on; with more they are hardly better
_MOST_CELLS = 100

_NAMES = (
    "cells_kl_human_synthetic",
    "cells_kl_synthetic_human",
    "cells_crowding",
    "ngrams_kl_human_synthetic",
    "ngrams_kl_synthetic_human",
)


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """How far the synthetic distribution is from the human one.

    Attributes:
        kl_human_synthetic: KL(human ‖ synthetic) over cells: large where the synthetic texts lack
            what humans write.
        kl_synthetic_human: KL(synthetic ‖ human) over cells: large where they have too much.
        crowding: the largest excess of synthetic texts in one cell, in standard deviations; it has
            no interval.
        ngrams: the two divergences over n-grams; empty where there were no texts.
        alarm: any of them is over its limit.
        p_value: of all of them together.
        cells: the quantisation.
        counts: [cells, 2] human and synthetic texts in each cell.
        drops: texts that could not be embedded, and are in no number.
    """

    kl_human_synthetic: Statistic
    kl_synthetic_human: Statistic
    crowding: Statistic
    ngrams: tuple[Statistic, ...]
    alarm: bool
    p_value: float
    cells: Cells
    counts: NDArray[np.int64]
    drops: tuple[Drop, ...] = ()

    @property
    def statistics(self) -> Mapping[str, Statistic]:
        """All of them, by name."""
        cells = (self.kl_human_synthetic, self.kl_synthetic_human, self.crowding)
        return dict(zip(_NAMES, cells + self.ngrams, strict=False))

    @property
    def ratio(self) -> NDArray[np.float64]:
        """[cells] the synthetic share over the human share, of smoothed counts; 1 is even."""
        return overfill(self.counts[:, 0], self.counts[:, 1])

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON; the cells from the most over-filled to the emptiest."""
        human, synthetic = (int(n) for n in self.counts.sum(0))
        cells = [
            {"cell": int(c), "human": int(self.counts[c, 0]), "synthetic": int(self.counts[c, 1]),
             "ratio": float(self.ratio[c])}
            for c in np.argsort(-self.ratio, kind="stable")
        ]  # fmt: skip
        return {
            "alarm": self.alarm, "p_value": self.p_value, "human": human, "synthetic": synthetic,
            "dropped": len(self.drops),
            "statistics": {name: _plain(s) for name, s in self.statistics.items()},
            "cells": cells,
        }  # fmt: skip

    def __str__(self) -> str:
        human, synthetic = self.counts.sum(0)
        verdict = "drift" if self.alarm else "no drift"
        lines = [
            f"{verdict} (p {self.p_value:.3f}): {synthetic} synthetic against {human} human texts"
        ]
        if self.drops:
            lines[0] += f", {len(self.drops)} set aside"
        lines += [f"  {name:<25} {_told(s)}" for name, s in self.statistics.items()]
        worst = np.argsort(-self.ratio, kind="stable")[:3]
        told = ", ".join(
            f"cell {c} {self.counts[c, 1]} to {self.counts[c, 0]} (×{self.ratio[c]:.1f})"
            for c in worst
        )
        return "\n".join([*lines, f"  most over-filled: {told}"])


def overfill(human: NDArray[Any], synthetic: NDArray[Any]) -> NDArray[np.float64]:
    """[cells] the synthetic share over the human share, half a count added to each cell."""
    p, q = human + 0.5, synthetic + 0.5
    ratio: NDArray[np.float64] = (q / q.sum()) / (p / p.sum())
    return ratio


def measure_drift(
    human: Vectors,
    synthetic: Vectors,
    *,
    texts: Texts | None = None,
    cells: int | Cells | None = None,
    ngram: int = 2,
    tokenize: Tokenize | None = None,
    permutations: int = 400,
    resamples: int = 200,
    level: float = 0.025,
    seed: int = 0,
) -> Drift:
    """Compare two samples of vectors, and their n-grams where there are texts.

    No number depends on the order of the rows.

    Args:
        human, synthetic: [n, width] and [m, width], `FEWEST` or more rows each.
        texts: the human and the synthetic texts of these rows.
        cells: how many, or cells that were fitted on other texts; None is `how_many`. Never give
            cells that were fitted on one of the two samples: they fit that one better.
        ngram: tokens an n-gram.
        tokenize: a text → its tokens; None takes words.
        permutations, resamples, level, seed: of the test (drift_null.outcome).

    Raises:
        DataError: too few rows, vectors of two widths or not finite, texts that are all the same,
            more cells than different texts, too few permutations.
    """
    samples = pooled(human, synthetic, texts, cells, ngram, tokenize, seed)
    found = samples.test(permutations, resamples, level, seed)
    return samples.drift(found)


def drift_of_texts(
    human: Sequence[str],
    synthetic: Sequence[str],
    embed: Callable[[Sequence[str]], Embedded],
    **settings: Any,
) -> Drift:
    """Compare two samples of texts, by what they are about and by their n-grams.

    Texts that cannot be embedded are set aside, with their reason, in `Drift.drops`; a drop's id
    is the side and the text's place in it, from 0.

    Args:
        human, synthetic: the texts.
        embed: rlaif.embed.Embedder, or anything like it.
        settings: as of `measure_drift`.

    Raises:
        DataError: as of `measure_drift`, of the texts that are left.
    """
    sides = [_embedded(human, embed, "human"), _embedded(synthetic, embed, "synthetic")]
    (h, h_texts, h_drops), (s, s_texts, s_drops) = sides
    found = measure_drift(h, s, texts=(h_texts, s_texts), **settings)
    return replace(found, drops=(*h_drops, *s_drops))


def how_many(rows: int) -> int:
    """Cells for so many rows on both sides together."""
    return max(2, min(_MOST_CELLS, round(math.sqrt(rows))))


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Both samples in one table, in an order that the vectors alone decide.

    Attributes:
        order: [texts] the row of human-then-synthetic that each is.
        synthetic: [texts] which are synthetic.
        cell: [texts] the cell of each.
        cells: the quantisation.
        tables: what is compared: cells, then n-grams.
    """

    order: NDArray[np.intp]
    synthetic: NDArray[np.bool_]
    cell: NDArray[np.intp]
    cells: Cells
    tables: tuple[Table, ...]

    def test(self, permutations: int, resamples: int, level: float, seed: int) -> Outcome:
        """The statistics of these samples, tested together."""
        measures = ((divergences, crowding), (divergences,))
        return outcome(
            list(zip(self.tables, measures, strict=False)), self.synthetic,
            permutations=permutations, resamples=resamples, level=level, seed=seed,
        )  # fmt: skip

    def drift(self, found: Outcome) -> Drift:
        """What was found, with the counts of the cells."""
        there, back, crowded, *others = found.statistics
        crowded = replace(crowded, low=math.nan, high=math.nan)  # a maximum is not resampled well
        return Drift(
            there, back, crowded, tuple(others), found.alarm, found.p_value, self.cells, self.counts
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """[cells, 2] human and synthetic rows in each."""
        sides = (self.cell[~self.synthetic], self.cell[self.synthetic])
        return np.stack([np.bincount(c, minlength=len(self.cells)) for c in sides], axis=1)

    def only(self, kept: NDArray[np.bool_]) -> Samples:
        """These rows alone, in the same cells."""
        tables = tuple(table[kept] for table in self.tables)
        return Samples(self.order[kept], self.synthetic[kept], self.cell[kept], self.cells, tables)

    def cells_alone(self) -> Samples:
        """The same rows without their n-grams."""
        return replace(self, tables=self.tables[:1])


def pooled(
    human: Vectors,
    synthetic: Vectors,
    texts: Texts | None,
    cells: int | Cells | None,
    ngram: int,
    tokenize: Tokenize | None,
    seed: int,
) -> Samples:
    """Both samples in one table; arguments and errors are those of `measure_drift`."""
    check_sides(human, synthetic)
    _check_texts(human, synthetic, texts)
    both = np.concatenate([human, synthetic]).astype(np.float32, copy=False)
    order, distinct = _by_content(both)
    both = both[order]
    quantisation = cells if isinstance(cells, Cells) else _fitted(both, distinct, cells, seed)
    cell = quantisation.of(both)
    tables = [_one_hot(cell, len(quantisation))]
    if texts is not None:
        said = [*texts[0], *texts[1]]
        tables.append(count_ngrams([said[i] for i in order], n=ngram, tokenize=tokenize))
    return Samples(order, order >= len(human), cell, quantisation, tuple(tables))


def _embedded(
    texts: Sequence[str], embed: Callable[[Sequence[str]], Embedded], side: Side
) -> tuple[Vectors, list[str], list[Drop]]:
    found = embed(texts)
    drops = [Drop(f"{side} {i}", "drift", fault) for i, fault in enumerate(found.faults) if fault]
    kept = [text for text, fault in zip(texts, found.faults, strict=True) if fault is None]
    return found.vectors[found.usable], kept, drops


def check_sides(human: Vectors, synthetic: Vectors) -> None:
    """Raise a `DataError` where two samples cannot be compared."""
    sides: tuple[tuple[Side, Vectors], ...] = (("human", human), ("synthetic", synthetic))
    for side, vectors in sides:
        if vectors.ndim != 2 or len(vectors) < FEWEST:
            raise DataError(
                "too few texts to tell a distribution", key=side, value=len(vectors),
                mend=f"give {FEWEST} or more",
            )  # fmt: skip
        length = np.linalg.norm(vectors, axis=1)
        bad = int((~np.isfinite(length) | (length == 0)).sum())
        if bad:
            raise DataError(
                f"{bad} embeddings are zero or not finite", key=side,
                mend="drop the texts that cannot be embedded",
            )  # fmt: skip
    if human.shape[1] != synthetic.shape[1]:
        raise DataError(
            f"embeddings are of width {synthetic.shape[1]}; the human ones are of width "
            f"{human.shape[1]}",
            key="synthetic", mend="embed both with the same model",
        )  # fmt: skip


def _check_texts(human: Vectors, synthetic: Vectors, texts: Texts | None) -> None:
    if texts is not None and tuple(map(len, texts)) != (len(human), len(synthetic)):
        raise DataError(
            "not as many texts as embeddings", key="texts", value=tuple(map(len, texts)),
            mend=f"give {len(human)} human and {len(synthetic)} synthetic ones",
        )  # fmt: skip


def _by_content(vectors: Vectors) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An order of the rows that does not depend on the order they came in, and equal rows once.

    It is as good as random, and no side comes first: its beginning is a fair sample of both.
    """
    digests = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in vectors]
    order = np.array(sorted(range(len(vectors)), key=digests.__getitem__), np.intp)
    names = [digests[i] for i in order]
    return order, np.array(
        [i for i, name in enumerate(names) if not i or name != names[i - 1]], np.intp
    )


def _fitted(both: Vectors, distinct: NDArray[np.intp], cells: int | None, seed: int) -> Cells:
    if len(distinct) < 2:
        raise DataError("the texts are all the same", mend="give texts that differ")
    if cells is not None and cells < 2:
        raise DataError("must be 2 or more", key="cells", value=cells)
    many = min(how_many(len(both)), len(distinct)) if cells is None else cells
    return fit_cells(both[distinct[: max(many * _FITTED, 1)]], many, seed)


def _one_hot(cell: NDArray[np.intp], cells: int) -> Table:
    rows = np.arange(len(cell))
    return csr_matrix((np.ones(len(cell), np.float32), (rows, cell)), shape=(len(cell), cells))


def _plain(statistic: Statistic) -> dict[str, float | bool | None]:
    numbers = {
        name: getattr(statistic, name)
        for name in ("value", "low", "high", "null_mean", "limit", "p_value")
    }
    return {n: v if math.isfinite(v) else None for n, v in numbers.items()} | {
        "over": statistic.over
    }


def _told(s: Statistic) -> str:
    over = " OVER" if s.over else ""
    known = "" if math.isnan(s.low) else f"; less chance {s.low:.4f} to {s.high:.4f}"
    return f"{s.value:.4f}{over}, by chance {s.null_mean:.4f}, limit {s.limit:.4f}{known}"
