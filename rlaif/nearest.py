"""Which anchors each query is most like, exactly, for queries without end.

Under filters/anchor.py, filters/drift.py, filters/duplicates.py and evaluate/collapse.py;
anchor_index.py is the approximate way, for anchors by the million.

nearest_scan.py finds the few anchors that can be the nearest; those are multiplied again in
float32. What is found is the same in bfloat16 as in float32, and does not depend on how the
queries are cut into blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rlaif.errors import DataError

if TYPE_CHECKING:
    import torch

    from rlaif.nearest_scan import Scan

Vectors = NDArray[np.float32]
Precision = Literal["auto", "float32", "bfloat16"]

Found = tuple[Vectors, NDArray[np.int64]]
"""What `Nearest` holds, of a block."""

_PRECISIONS = ("auto", "float32", "bfloat16")
_CROWDED = 32  # groups; a query that is near to more is multiplied with all anchors
_AT_ONCE = {"cpu": 2048, "cuda": 1 << 20}  # pairs multiplied again: 3 MB, 1.5 GB at a width of 384
_CUDA_THREADS = 4  # blocks on their way at once: one is copied while another is multiplied
_LOOKED_AT = 65_536  # rows
_WHOLE = 4_000_000  # products of crowded queries in memory at once
_WORTH_A_TRIAL = 2e10  # multiplications: a fifth of a second or so


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest anchors of each query, the best first; of equal ones the lowest index.

    Attributes:
        similarity: [queries, k] inner products, which are cosines for unit vectors; falling.
        index: [queries, k] rows of the anchors.
    """

    similarity: Vectors
    index: NDArray[np.int64]


def nearest(
    queries: Vectors | Iterable[Vectors],
    anchors: Vectors,
    k: int = 1,
    *,
    precision: Precision = "auto",
    leave_out_self: bool = False,
) -> Nearest:
    """The k anchors that each query is most like; on CUDA where there is one.

    On a CPU each thread takes a block of its own: two threads that share a product as small as a
    block's wait for each other more than they multiply. On CUDA a few threads, each with a stream,
    keep the card multiplying while blocks are copied. Memory is that of the anchors and one or
    two copies of them, of two blocks of queries a thread and of the answer, however many queries
    there are.

    Args:
        queries: [n, width], in memory or mapped; or such blocks one after another, which need not
            be in memory together.
        anchors: [m, width].
        k: neighbours a query, 1 to m.
        precision: what the scan multiplies in. "bfloat16" finds what "float32" finds; "auto"
            takes it where this machine is faster at it.
        leave_out_self: the queries are the anchors, and none is a neighbour of itself.

    Raises:
        DataError: no anchors, fewer than k, another width, a number that is not finite, or queries
            beyond the anchors that they are said to be.
        ValueError: no such precision.
    """
    from rlaif.nearest_scan import exact_products

    _check_anchors(anchors, k, len(anchors) - leave_out_self)
    with exact_products():
        search = _Search.of(anchors, k, leave_out_self, _dtype(precision, queries, anchors))
        blocks = _blocks(queries, search.scans[0].block)
        few = isinstance(queries, np.ndarray) and len(queries) <= search.scans[0].block
        found = search.blocks(blocks, 1 if few else search.threads)
    none = np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
    similarity, index = zip(none, *found, strict=True)
    return Nearest(np.concatenate(similarity), np.concatenate(index))


def check_vectors(
    vectors: Vectors, width: int | None = None, what: str = "embeddings", start: int = 0
) -> None:
    """Refuse what is no table [rows, width] of finite numbers.

    Args:
        vectors: to look at.
        width: of the anchors; None is any.
        what: the vectors are, in the error.
        start: number of the first row, in the error.

    Raises:
        DataError: it is none.
    """
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise DataError(f"{what} must be a table [rows, width]", value=vectors.shape)
    if width is not None and vectors.shape[1] != width:
        raise DataError(
            f"{what} are of width {vectors.shape[1]}, the anchors of width {width}",
            mend="embed both with the same model",
        )
    blocks = (vectors[at : at + _LOOKED_AT] for at in range(0, len(vectors), _LOOKED_AT))
    bad = np.concatenate(
        [~np.isfinite(block).all(axis=1) for block in blocks] or [np.zeros(0, bool)]
    )
    if bad.any():
        first = start + int(bad.argmax())
        raise DataError(
            f"not finite: {int(bad.sum())} of the {what}, the first in row {first}",
            mend="drop the rows that cannot be embedded",
        )


def _check_anchors(anchors: Vectors, k: int, neighbours: int) -> None:
    if not len(anchors):
        raise DataError("there are no anchors", mend="give at least one")
    check_vectors(anchors, what="anchors")
    if not 1 <= k <= neighbours:
        raise DataError(
            f"there are {neighbours} neighbours to find", key="k", value=k,
            mend="ask for one or more of them, or give more anchors",
        )  # fmt: skip


def _dtype(precision: str, queries: Vectors | Iterable[Vectors], anchors: Vectors) -> torch.dtype:
    """What the scan multiplies in."""
    import torch

    from rlaif.nearest_scan import bfloat16_is_faster

    if precision not in _PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(_PRECISIONS)}, not {precision}")
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if isinstance(queries, np.ndarray) and len(queries) * anchors.size < _WORTH_A_TRIAL:
        return torch.float32
    return torch.bfloat16 if bfloat16_is_faster(_device()) else torch.float32


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _blocks(queries: Vectors | Iterable[Vectors], rows: int) -> Iterator[tuple[int, Vectors]]:
    """The queries by so many rows at most, each block with the number of its first."""
    start = 0
    for part in [queries] if isinstance(queries, np.ndarray) else queries:
        if not len(part):
            continue
        for at in range(0, len(part), rows):
            yield start + at, np.array(part[at : at + rows], np.float32)
        start += len(part)


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """One search.

    Attributes:
        anchors: [m, width] in float32.
        scans: of the anchors, the quickest first.
        k: neighbours a query.
        leave_out_self: the queries are the anchors.
    """

    anchors: torch.Tensor
    scans: tuple[Scan, ...]
    k: int
    leave_out_self: bool

    @classmethod
    def of(cls, anchors: Vectors, k: int, leave_out_self: bool, dtype: torch.dtype) -> _Search:
        import torch

        from rlaif.nearest_scan import ready

        writable = np.require(anchors, np.float32, ["C", "W"])  # torch warns of others
        plain = torch.from_numpy(writable).to(_device())
        scans = tuple(ready(plain, kind) for kind in dict.fromkeys((dtype, torch.float32)))
        return cls(plain, scans, k, leave_out_self)

    @property
    def threads(self) -> int:
        """How many blocks are best searched at once."""
        import torch

        return _CUDA_THREADS if self.anchors.is_cuda else torch.get_num_threads()

    def blocks(self, blocks: Iterable[tuple[int, Vectors]], threads: int) -> list[Found]:
        """Of each block of queries; two blocks a thread are in memory."""
        from rlaif.nearest_scan import torch_threads

        if threads == 1:
            return [self.block(start, block) for start, block in blocks]
        found, waiting = list[Found](), deque[Future[Found]]()
        pool = ThreadPoolExecutor(threads, initializer=self._own_stream)
        with torch_threads(1), pool:
            for start, block in blocks:
                if len(waiting) == 2 * threads:
                    found.append(waiting.popleft().result())
                waiting.append(pool.submit(self.block, start, block))
            return found + [one.result() for one in waiting]

    def block(self, start: int, block: Vectors) -> Found:
        """Of a block of queries, the first of which has this number."""
        import torch

        check_vectors(block, self.anchors.shape[1], "queries", start)
        with torch.inference_mode():  # a mode is a thread's own
            return self._of_block(start, block)

    def _own_stream(self) -> None:
        """On CUDA, give this thread a stream of its own, once the anchors are there."""
        import torch

        if self.anchors.is_cuda:
            torch.cuda.synchronize(self.anchors.device)  # they are made, in whatever stream
            torch.cuda.set_stream(torch.cuda.Stream(self.anchors.device))  # type: ignore[no-untyped-call]

    def _of_block(self, start: int, block: Vectors) -> Found:
        import torch

        queries = torch.from_numpy(block).to(self.anchors.device)
        numbers = torch.arange(start, start + len(block), device=queries.device)
        if self.leave_out_self and start + len(block) > len(self.anchors):
            raise DataError(
                f"there are more queries than the {len(self.anchors)} anchors that they are to be",
                key="leave_out_self", mend="give the anchors as queries, or do not leave out any",
            )  # fmt: skip
        return self._find(queries, numbers if self.leave_out_self else None, self.scans)

    def _find(
        self, queries: torch.Tensor, itself: torch.Tensor | None, scans: Sequence[Scan]
    ) -> Found:
        """By the first scan; what is too crowded for it, by the next; at last without one."""
        if not scans:
            return self._whole(queries, itself)
        rows, groups, counts = scans[0].near_groups(queries, self.k, itself)
        # No group at all: products that overflow.
        crowded = (counts > _CROWDED + self.k) | (counts == 0)
        clear = ~crowded[rows]
        members = scans[0].members(groups[clear])
        found = self._recheck(queries, itself, rows[clear], members)
        if crowded.any():
            own = None if itself is None else itself[crowded]
            again, at = self._find(queries[crowded], own, scans[1:]), crowded.cpu().numpy()
            found[0][at], found[1][at] = again
        return found

    def _recheck(
        self,
        queries: torch.Tensor,
        itself: torch.Tensor | None,
        rows: torch.Tensor,
        members: torch.Tensor,
    ) -> Found:
        """The nearest among these, by products in float32.

        Args:
            queries: [n, width].
            itself: [n] the anchor that each is.
            rows: [pairs] queries, in their order.
            members: [pairs, some] anchors to look at for each of them.
        """
        import torch

        valid = members < len(self.anchors)
        if itself is not None:
            valid &= members != itself[rows][:, None]
        rows, members = rows.repeat_interleave(valid.sum(1)), members[valid]
        some = _AT_ONCE[queries.device.type]
        parts = zip(torch.split(rows, some), torch.split(members, some), strict=True)
        products = [
            torch.linalg.vecdot(queries.index_select(0, r), self.anchors.index_select(0, m))
            for r, m in parts
        ]
        return _best(rows, members, torch.cat(products), len(queries), self.k)

    def _whole(self, queries: torch.Tensor, itself: torch.Tensor | None) -> Found:
        """The nearest among all anchors, by products in float64."""
        import torch

        found = []
        for at in range(0, len(queries), max(1, _WHOLE // len(self.anchors))):
            some = slice(at, at + max(1, _WHOLE // len(self.anchors)))
            part = queries[some].double()
            products = torch.cat(
                [(part @ chunk.double().T).float() for chunk in torch.split(self.anchors, 16_384)],
                dim=1,
            )
            if itself is not None:
                products.scatter_(1, itself[some][:, None], -torch.inf)
            found.append(products.sort(dim=1, descending=True, stable=True))
        similarity, index = (
            torch.cat([pair[i][:, : self.k] for pair in found]).cpu().numpy() for i in (0, 1)
        )
        return similarity, index


def _best(
    rows: torch.Tensor, members: torch.Tensor, products: torch.Tensor, count: int, k: int
) -> Found:
    """The k greatest products of each row; of equal ones the lowest member; NaN without any."""
    import torch

    order = members.argsort()
    order = order[products[order].argsort(descending=True, stable=True)]
    order = order[rows[order].argsort(stable=True)]
    here, many = torch.unique_consecutive(rows, return_counts=True)
    best = order[(many.cumsum(0) - many)[:, None] + torch.arange(k, device=rows.device)]
    similarity = products.new_full((count, k), torch.nan)
    index = members.new_full((count, k), -1)
    similarity[here], index[here] = products[best], members[best]
    return similarity.cpu().numpy(), index.cpu().numpy()
