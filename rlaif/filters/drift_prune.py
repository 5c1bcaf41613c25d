"""Which synthetic samples to take out, so that what is left is no further off than chance makes it.

Called where drift.py says alarm. Pruning can only take away: where the synthetic texts lack what
humans write, or say the same in other words, too much would have to go, and the batch is discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaif.cells import Cells
from rlaif.embed import Vectors
from rlaif.filters.drift import Drift, Samples, measure_drift, overfill, pooled
from rlaif.filters.drift_ngrams import Tokenize
from rlaif.nearest import nearest

_NEIGHBOURS = 20
_STEP = 0.05  # of what was taken out, where the cells of what is left still see a drift


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """What is left of a batch.

    Attributes:
        keep: [synthetic]; none where no pruning of at most `most` of the batch helps.
        before: of the whole batch.
        after: of what is kept, measured anew; None where nothing is.
    """

    keep: NDArray[np.bool_]
    before: Drift
    after: Drift | None


def prune(
    human: Vectors,
    synthetic: Vectors,
    *,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
    most: float = 0.5,
    cells: int | Cells | None = None,
    ngram: int = 2,
    tokenize: Tokenize | None = None,
    permutations: int = 400,
    resamples: int = 200,
    level: float = 0.025,
    seed: int = 0,
) -> Pruned:
    """Take out the fewest samples that bring the drift under its limit.

    They go from the cells with the highest synthetic share over human share, which is the steepest
    way down for both divergences: dKL(s ‖ h)/ds = log(s/h) and dKL(h ‖ s)/ds = -h/s, up to a
    constant. Within a cell those go first whose neighbours are synthetic. Limits are those of the
    sizes that are left, and the last word has `measure_drift` of what is kept, with its own cells.

    Args:
        human, synthetic, texts, and the settings: as of `measure_drift`.
        most: the largest share of the batch that may go.

    Raises:
        DataError: as of `measure_drift`.
    """
    samples = pooled(human, synthetic, texts, cells, ngram, tokenize, seed)
    before = samples.drift(samples.test(permutations, resamples, level, seed))
    if not before.alarm:
        return Pruned(np.ones(len(synthetic), bool), before, before)
    both = np.concatenate([human, synthetic])[samples.order]
    going = _first_to_go(samples, both)[: int(most * len(synthetic))]

    def still(removed: int) -> bool:
        left = samples.only(_without(samples, going[:removed]))
        return left.test(permutations, 0, level, seed).alarm

    def anew(removed: int) -> tuple[NDArray[np.bool_], Drift]:
        keep = np.ones(len(synthetic), bool)
        keep[samples.order[going[:removed]] - len(human)] = False
        kept = None if texts is None else (
            texts[0], [text for text, stays in zip(texts[1], keep, strict=True) if stays]
        )  # fmt: skip
        return keep, measure_drift(
            human, synthetic[keep], texts=kept, cells=cells, ngram=ngram, tokenize=tokenize,
            permutations=permutations, resamples=resamples, level=level, seed=seed,
        )  # fmt: skip

    removed = _fewest(still, len(going))
    while removed <= len(going):
        keep, after = anew(removed)
        if not after.alarm:
            return Pruned(keep, before, after)
        removed += max(1, round(_STEP * removed))
    return Pruned(np.zeros(len(synthetic), bool), before, None)


def _first_to_go(samples: Samples, vectors: Vectors) -> NDArray[np.intp]:
    """Rows of `samples` from the first to go to the last that stands in an over-filled cell."""
    human, synthetic = samples.counts.T
    even = synthetic.sum() / human.sum()
    crowded = samples.synthetic & (overfill(human, synthetic) > 1)[samples.cell]
    rows = np.flatnonzero(crowded)
    if not len(rows):
        return rows
    alike = nearest(vectors[rows], vectors, min(_NEIGHBOURS + 1, len(vectors)))
    around = samples.synthetic[alike.index].mean(1)
    rows = rows[np.lexsort((-around, samples.cell[rows]))]
    cell = samples.cell[rows]
    place = np.arange(len(rows)) - np.searchsorted(cell, cell)
    level = (synthetic[cell] - place + 0.5) / (human[cell] + 0.5)
    over = level > even
    first: NDArray[np.intp] = rows[over][np.argsort(-level[over], kind="stable")]
    return first


def _without(samples: Samples, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    kept = np.ones(len(samples.synthetic), bool)
    kept[rows] = False
    return kept


def _fewest(still: Callable[[int], bool], most: int) -> int:
    """The least number, to `most`, for which it is no longer so; `most` + 1 where it always is."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if still(middle) else (low, middle)
    return high
