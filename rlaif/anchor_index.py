"""Which anchors each query is most like, approximately, where there are millions of anchors.

Beside nearest.py, which is exact. FAISS sorts the anchors into cells, once, and a query looks into
the few cells that it is nearest to (an inverted file, arXiv:2401.08281). How many cells, is found
on queries for which the exact answer is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlaif.errors import DataError
from rlaif.nearest import Nearest, Vectors, check_vectors

_SAMPLE = 256  # queries that are compared with the exact answer
_PER_CELL = 39  # anchors a cell, at least, that FAISS wants for its k-means
_TRAINED_ON = 64  # anchors a cell, at most, that the cells are made of
_ROUNDS = 10  # of k-means


class AnchorIndex:
    """Anchors, sorted for quick search.

    Make one by `build` or `load`.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(
        cls, anchors: Vectors, sample: Vectors, *, recall: float = 0.95, seed: int = 0
    ) -> AnchorIndex:
        """Sort the anchors, and find how many cells a query must look into.

        Args:
            anchors: [m, width] unit vectors; the index keeps a copy.
            sample: [n, width] queries like those to come; up to 256 of them are drawn.
            recall: the share of them, above 0 to 1, whose nearest anchor must be found.
            seed: of the cells and the draw.

        Raises:
            DataError: no anchors, no queries, another width, or a number that is not finite.
            ValueError: a recall that is no such share.
        """
        import faiss

        if not 0 < recall <= 1:
            raise ValueError(f"recall is above 0 and at most 1, not {recall}")
        _check(anchors, sample)
        cells = inverted_file(anchors, seed)
        index = faiss.IndexIVFFlat(
            cells, anchors.shape[1], cells.ntotal, faiss.METRIC_INNER_PRODUCT
        )
        index.add(np.ascontiguousarray(anchors, np.float32))
        made = cls(index)
        made._choose_probes(drawn(sample, _SAMPLE, seed), recall)
        return made

    @classmethod
    def load(cls, file: Path) -> AnchorIndex:
        """An index that `save` wrote.

        Raises:
            DataError: there is no such file, or it is none.
        """
        import faiss

        if not file.is_file():
            raise DataError("no such index of anchors", file=file)
        try:
            index = faiss.read_index(str(file))
        except RuntimeError as error:
            raise _no_index(file) from error
        if not isinstance(index, faiss.IndexIVFFlat):
            raise _no_index(file)
        return cls(index)

    def save(self, file: Path) -> None:
        """Write the index; a file of that name is replaced at once or not at all.

        Raises:
            DataError: it cannot be written.
        """
        import faiss

        part = file.with_name(f"{file.name}.part")
        try:
            faiss.write_index(self._index, str(part))
            part.replace(file)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise DataError("cannot be written", file=file, mend="name another file") from error

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def probes(self) -> int:
        """Cells that a query looks into."""
        return int(self._index.nprobe)

    def search(self, queries: Vectors, k: int = 1) -> Nearest:
        """The k anchors that each query is most like, as far as they are found.

        Where the cells that a query looks into hold fewer than k anchors, the rest of its indices
        is -1, with a similarity of -inf.

        Args:
            queries: [n, width].
            k: neighbours a query, 1 to m.

        Raises:
            DataError: another width, more neighbours than anchors, or a number that is not finite.
        """
        return self._search(queries, k, self.probes)

    def recall(self, queries: Vectors, k: int = 1, seed: int = 0) -> float:
        """The share, 0 to 1, of the k nearest anchors that `search` finds.

        It is measured against a search of all cells, on up to 256 of the queries.

        Raises:
            DataError: as `search`, or no queries.
        """
        if not len(queries):
            raise DataError("there are no queries to measure the recall on")
        some = drawn(queries, _SAMPLE, seed)
        return _shared(self.search(some, k), self._exact(some, k))

    def _search(self, queries: Vectors, k: int, probes: int) -> Nearest:
        import faiss

        check_vectors(queries, self._index.d, "queries")
        if not 1 <= k <= len(self):
            raise DataError(f"there are {len(self)} anchors", key="k", value=k)
        how = faiss.SearchParametersIVF()
        how.nprobe = probes
        plain = np.ascontiguousarray(queries, np.float32)
        similarity, index = self._index.search(plain, k, params=how)
        similarity[index < 0] = -np.inf
        return Nearest(similarity, index)

    def _exact(self, queries: Vectors, k: int) -> Nearest:
        return self._search(queries, k, self._index.nlist)

    def _choose_probes(self, sample: Vectors, recall: float) -> None:
        """The fewest cells, doubling, in which so many of the sample find their nearest."""
        exact, probes = self._exact(sample, 1), 1
        while probes < self._index.nlist:
            if _shared(self._search(sample, 1, probes), exact) >= recall:
                break
            probes *= 2
        self._index.nprobe = min(probes, self._index.nlist)


def inverted_file(vectors: Vectors, seed: int) -> Any:
    """Centres of about 2√n cells, by k-means on a sample, as a flat FAISS index.

    Args:
        vectors: [n, width] unit vectors.
        seed: of the sample and the starting centres.
    """
    import faiss

    count = max(1, min(round(2 * np.sqrt(len(vectors))), len(vectors) // _PER_CELL))
    sample = drawn(vectors, _TRAINED_ON * count, seed)
    kmeans = faiss.Kmeans(
        sample.shape[1], count, niter=_ROUNDS, spherical=True, seed=seed % 2**31,
        min_points_per_centroid=1, max_points_per_centroid=_TRAINED_ON,
    )  # fmt: skip
    kmeans.train(sample)
    return kmeans.index


def drawn(vectors: Vectors, count: int, seed: int) -> Vectors:
    """So many of the vectors at most, each at most once, in their order."""
    if len(vectors) <= count:
        return np.ascontiguousarray(vectors, np.float32)
    chosen = np.random.default_rng(seed).choice(len(vectors), count, replace=False, shuffle=False)
    return np.ascontiguousarray(vectors[np.sort(chosen)], np.float32)


def _shared(found: Nearest, exact: Nearest) -> float:
    """The share of the exact answer that was found; another anchor that is as near will do."""
    least = exact.similarity[:, -1:] - 1e-6
    return float((found.similarity >= least).mean())


def _check(anchors: Vectors, sample: Vectors) -> None:
    if not len(anchors):
        raise DataError("there are no anchors", mend="give at least one")
    check_vectors(anchors, what="anchors")
    if not len(sample):
        raise DataError("there are no queries to tune the index on", mend="give a few")
    check_vectors(sample, anchors.shape[1], "queries")


def _no_index(file: Path) -> DataError:
    return DataError("is no index of anchors", file=file, mend="build it anew")
