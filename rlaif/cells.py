"""A common quantisation of embedding space: k-means cells, and which cell a vector lies in.

Two distributions can be compared only over the same cells, so cells are fitted once and are then
asked. Under filters/drift.py, prompts/topics.py, prompts/gaps.py and evaluate/collapse.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from rlaif.errors import DataError

Vectors = NDArray[np.float32]

_BLOCK = 65_536  # vectors whose distances are in memory at once


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells of a quantisation.

    Attributes:
        centres: [cells, width].
    """

    centres: Vectors

    def __len__(self) -> int:
        return len(self.centres)

    def of(self, vectors: Vectors) -> NDArray[np.intp]:
        """[n] the number of the cell that each vector is nearest to.

        Raises:
            DataError: the vectors are of another width.
        """
        if vectors.shape[1] != self.centres.shape[1]:
            raise DataError(
                f"embeddings are of width {vectors.shape[1]}; the cells were made at width "
                f"{self.centres.shape[1]}",
                mend="embed both with the same model",
            )
        shift = (self.centres**2).sum(1) / 2
        blocks = [
            np.argmax(vectors[i : i + _BLOCK] @ self.centres.T - shift, axis=1)
            for i in range(0, len(vectors), _BLOCK)
        ]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.intp)

    def counts(self, vectors: Vectors) -> NDArray[np.int64]:
        """[cells] how many of the vectors lie in each."""
        return np.bincount(self.of(vectors), minlength=len(self)).astype(np.int64)


def fit_cells(vectors: Vectors, cells: int, seed: int = 0) -> Cells:
    """So many cells, by k-means.

    Args:
        vectors: [n, width]; unit vectors, so that distance is cosine.
        cells: how many.
        seed: of the starting centres.

    Raises:
        DataError: fewer different vectors than cells, or one that is not finite.
    """
    if not np.isfinite(vectors).all():
        raise DataError("an embedding is not finite", mend="drop the rows that cannot be embedded")
    distinct = len(np.unique(vectors, axis=0))
    if distinct < cells:
        raise DataError(
            "more cells than different texts", key="cells", value=cells,
            mend=f"ask for {distinct} or fewer, or give more texts",
        )  # fmt: skip
    fitted = KMeans(cells, n_init=1, random_state=seed).fit(vectors)
    return Cells(fitted.cluster_centers_.astype(np.float32))
