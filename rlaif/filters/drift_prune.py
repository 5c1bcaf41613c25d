"""Which synthetic samples to take out, so that what is left is no further off than chance makes it.

Called where drift.py says alarm. Pruning can only take away: where the synthetic texts lack what
humans write, or say the same in other words, too much would have to go, and the batch is discarded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaif.cells import Cells
from rlaif.embed import Vectors
from rlaif.errors import DataError
from rlaif.filters.drift import FEWEST, Drift, Samples, Texts, measure_drift, overfill, pooled
from rlaif.filters.drift_ngrams import Tokenize
from rlaif.filters.drift_null import Table
from rlaif.nearest import nearest

Alarm = Callable[[Samples], bool]

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
    texts: Texts | None = None,
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
        DataError: as of `measure_drift`; or `most` is no share.
    """
    if not 0 <= most <= 1:
        raise DataError("must be a share, 0 to 1", key="most", value=most)
    samples = pooled(human, synthetic, texts, cells, ngram, tokenize, seed)
    before = samples.drift(samples.test(permutations, resamples, level, seed))
    if not before.alarm:
        return Pruned(np.ones(len(synthetic), bool), before, before)

    def alarm(left: Samples) -> bool:
        return left.test(permutations, 0, level, seed).alarm

    vectors = np.concatenate([human, synthetic])[samples.order]
    allowed = min(int(most * len(synthetic)), len(synthetic) - FEWEST)
    going = _first_to_go(samples, vectors, allowed, alarm)
    for keep in _shorter(samples, going, alarm, len(human)):
        after = measure_drift(
            human, synthetic[keep], texts=_kept(texts, keep), cells=cells, ngram=ngram,
            tokenize=tokenize, permutations=permutations, resamples=resamples, level=level,
            seed=seed,
        )  # fmt: skip
        if not after.alarm:
            return Pruned(keep, before, after)
    return Pruned(np.zeros(len(synthetic), bool), before, None)


def _first_to_go(
    samples: Samples, vectors: Vectors, allowed: int, alarm: Alarm
) -> NDArray[np.intp]:
    """Synthetic rows of `samples`, in the order in which they go: by cell, then by n-grams."""
    going = _by_cell(samples, vectors)[:allowed]
    if len(samples.tables) == 1:
        return going
    going = going[: _fewest(samples.cells_alone(), going, alarm)]
    return np.concatenate([going, _by_ngrams(samples, going)])[:allowed]


def _shorter(
    samples: Samples, going: NDArray[np.intp], alarm: Alarm, humans: int
) -> Iterator[NDArray[np.bool_]]:
    """[synthetic] what stays: first as much as the cells of the whole batch allow, then less."""
    removed = _fewest(samples, going, alarm)
    while removed <= len(going):
        keep = np.ones(len(samples.order) - humans, bool)
        keep[samples.order[going[:removed]] - humans] = False
        yield keep
        removed += max(1, round(_STEP * removed))


def _kept(texts: Texts | None, keep: NDArray[np.bool_]) -> Texts | None:
    if texts is None:
        return None
    return texts[0], [text for text, stays in zip(texts[1], keep, strict=True) if stays]


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


def _fewest(samples: Samples, going: NDArray[np.intp], alarm: Alarm) -> int:
    """The least number of rows to take out for no alarm; one more than there are where none is.

    From below: who takes out too much makes a drift of another kind.
    """

    def still(removed: int) -> bool:
        return alarm(samples.only(_without(samples, going[:removed])))

    low, high = 0, max(1, len(going) // 64)
    while high <= len(going) and still(high):
        low, high = high, high + max(1, high // 2)
    high = min(high, len(going) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if still(middle) else (low, middle)
    return high
