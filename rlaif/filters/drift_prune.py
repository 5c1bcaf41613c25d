"""Which synthetic samples to take out, so that what is left is no further off than chance makes it.

Called where drift.py says alarm. Pruning can only take away: where the synthetic texts lack what
humans write, or say the same in other words, too much would have to go, and the batch is discarded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaif.cells import Cells
from rlaif.embed import Vectors
from rlaif.filters.drift import Drift, Samples, measure_drift, overfill, pooled
from rlaif.filters.drift_ngrams import Tokenize
from rlaif.filters.drift_null import Table
from rlaif.nearest import nearest

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

    They go from the cells that hold the most too many, in standard deviations, level by level:
    by the ratio of shares, which is the steepest way down, small cells that are full by chance
    would go first. Within a cell those go first whose neighbours are synthetic. Where the n-grams
    are over their limit still, texts go on by how much more synthetic than human their n-grams
    are. Limits are those of the sizes that are left, and the last word has `measure_drift` of what
    is kept, with its own cells.

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

    def fewest(whole: Samples, order: NDArray[np.intp]) -> int:
        def still(removed: int) -> bool:
            left = whole.only(_without(whole, order[:removed]))
            return left.test(permutations, 0, level, seed).alarm

        return _fewest(still, len(order))

    allowed = int(most * len(synthetic))
    going = _by_cell(samples, np.concatenate([human, synthetic])[samples.order])[:allowed]
    if texts is not None:
        going = going[: fewest(samples.cells_alone(), going)]
        going = np.concatenate([going, _by_ngrams(samples, going)])[:allowed]
    removed = fewest(samples, going)

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

    while removed <= len(going):
        keep, after = anew(removed)
        if not after.alarm:
            return Pruned(keep, before, after)
        removed += max(1, round(_STEP * removed))
    return Pruned(np.zeros(len(synthetic), bool), before, None)


def _by_cell(samples: Samples, vectors: Vectors) -> NDArray[np.intp]:
    """Rows of `samples` from the first to go to the last that stands in an over-filled cell."""
    human, synthetic = samples.counts.T
    share = synthetic.sum() / len(samples.order)
    crowded = synthetic > share * (human + synthetic)
    rows = np.flatnonzero(samples.synthetic & crowded[samples.cell])
    if not len(rows):
        return rows
    around = _synthetic_around(samples, rows, vectors)
    rows = rows[np.lexsort((-around, samples.cell[rows]))]
    cell = samples.cell[rows]
    left = synthetic[cell] - (np.arange(len(rows)) - np.searchsorted(cell, cell))
    both = human[cell] + left
    excess = (left - share * both) / np.sqrt(share * (1 - share) * both)
    over = excess > 0
    first: NDArray[np.intp] = rows[over][np.argsort(-excess[over], kind="stable")]
    return first


def _synthetic_around(
    samples: Samples, rows: NDArray[np.intp], vectors: Vectors
) -> NDArray[np.float64]:
    """[rows] the synthetic share of the nearest texts: what is planted stands close together."""
    neighbours = round(math.sqrt(len(vectors)))
    around = nearest(vectors[rows], vectors, neighbours).index
    share: NDArray[np.float64] = samples.synthetic[around].mean(1)
    return share


def _by_ngrams(samples: Samples, gone: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of the synthetic rows that are left, those whose n-grams are synthetic ones, most so first.

    The mean over a text's n-grams of log(synthetic share / human share) is how fast
    KL(synthetic ‖ human) falls with it.
    """
    table = samples.tables[1]
    left = _without(samples, gone)
    rows = np.flatnonzero(left & samples.synthetic)
    weight = np.log(overfill(_total(table[~samples.synthetic]), _total(table[rows])))
    said = table[rows]
    score = (said @ weight) / np.maximum(said @ np.ones_like(weight), 1)
    more: NDArray[np.intp] = rows[np.argsort(-score, kind="stable")][: int((score > 0).sum())]
    return more


def _total(table: Table) -> NDArray[np.float64]:
    return np.asarray(table.sum(0), np.float64).ravel()


def _without(samples: Samples, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    kept = np.ones(len(samples.synthetic), bool)
    kept[rows] = False
    return kept


def _fewest(still: Callable[[int], bool], most: int) -> int:
    """The least number, to `most`, for which it is no longer so; `most` + 1 where it always is.

    From below: who takes out too much makes a drift of another kind.
    """
    low, high = 0, max(1, most // 64)
    while high <= most and still(high):
        low, high = high, high + max(1, high // 2)
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if still(middle) else (low, middle)
    return high
