"""Prompts drawn evenly over regions, as evenly as there are any. Beside gaps.py, which makes more.

Filling is like water in vessels of different height: every region gets the same, and one that
has less gives all it has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlaif.cells import Cells, Vectors
from rlaif.entropy import entropy
from rlaif.errors import DataError


def stratified(vectors: Vectors, cells: Cells, n: int, seed: int) -> NDArray[np.intp]:
    """Rows drawn so that every region has as nearly the same number as its supply allows.

    Args:
        vectors: [rows, width], all of them embeddings.
        cells: the regions.
        n: rows to draw, none twice.
        seed: of the draw.

    Returns:
        [n] row numbers, rising.

    Raises:
        DataError: fewer than `n` rows, or vectors of another width.
    """
    place = cells.of(vectors)
    rng = np.random.default_rng(seed)
    quotas = even_quotas(np.bincount(place, minlength=len(cells)).astype(np.int64), n, rng)
    drawn = [
        rng.choice(np.flatnonzero(place == cell), quota, replace=False)
        for cell, quota in enumerate(quotas)
        if quota
    ]
    return np.sort(np.concatenate(drawn)) if drawn else np.zeros(0, np.intp)


def even_quotas(supply: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many of `n` each region gives: no region more than one above another that has more left.

    Args:
        supply: [regions] what each has.
        n: wanted in all.
        rng: which regions give one more, where `n` does not come out even.

    Raises:
        DataError: the regions do not have `n`.
    """
    if not 0 <= n <= supply.sum():
        raise DataError(
            f"there are {int(supply.sum())} prompts to draw from", key="n", value=n,
            mend="ask for as many or fewer",
        )  # fmt: skip
    low, high = 0, int(supply.max(initial=0))
    while low < high:  # the highest level that n can fill all regions to
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(supply, level).sum() <= n else (low, level - 1)
    quotas = np.minimum(supply, low)
    deeper = np.flatnonzero(supply > low)
    quotas[rng.choice(deeper, n - int(quotas.sum()), replace=False)] += 1
    return quotas


def level_for(counts: NDArray[np.int64], evenness: float) -> int:
    """The lowest number of rows to fill each region up to, so that they are as even as this.

    Args:
        counts: [regions] rows that are there, none of which is taken away.
        evenness: entropy over log(regions) to reach, 0 to 1.
    """
    wanted = evenness * np.log(len(counts)) - 1e-12  # of equal numbers, a rounding error less
    low, high = 0, int(counts.max(initial=0))
    while low < high:  # filling never makes it less even, so that halving finds it
        level = (low + high) // 2
        enough = entropy(np.maximum(counts, level)) >= wanted
        low, high = (low, level) if enough else (level + 1, high)
    return low
