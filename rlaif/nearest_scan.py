"""Which few anchors can be a query's nearest: one matrix product, bounded, never kept whole.

Under nearest.py. A block of queries is multiplied with a chunk of anchors, and leaves the cache
only as the greatest product of every few anchors (a group). Rounding moves a product by no more
than a bound that follows from the vectors: |q·a − q'·a'| ≤ |q − q'||a'| + |q||a − a'|, and the
rounding of the result. A group whose maximum falls short of the best by more than twice that bound
cannot hold the nearest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """The anchors as the scan multiplies them.

    Attributes:
        anchors: [m, width] in the precision of the scan, padded with zeros to whole groups.
        count: how many of them are anchors.
        error: the greatest length that rounding moved an anchor by.
        longest: the greatest length of an anchor.
        block: queries at once.
        chunk: anchors at once.
        group: anchors behind one maximum: fewer is more maxima, more is more to multiply again.
    """

    anchors: torch.Tensor
    count: int
    error: float
    longest: float
    block: int
    chunk: int
    group: int

    def near_groups(
        self, queries: torch.Tensor, k: int, itself: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Every group that can hold one of the k nearest.

        Args:
            queries: [n, width] in float32, at most a block.
            k: neighbours a query.
            itself: [n] the anchor that each query is, where the queries are anchors.

        Returns:
            The query and the group of each find, in the order of queries; and how many each has.
        """
        rounded = queries.to(self.anchors.dtype)
        maxima = self._maxima(rounded, itself)
        near = maxima >= self._least(queries, rounded, maxima, k)[:, None]
        rows, groups = near.nonzero(as_tuple=True)
        return rows, groups, torch.bincount(rows, minlength=len(queries))

    def members(self, groups: torch.Tensor) -> torch.Tensor:
        """[groups, group] the anchors of each; a number of `count` or above is none."""
        chunk = groups * self.group // self.chunk * self.chunk
        stride = (len(self.anchors) - chunk).clamp(max=self.chunk) // self.group
        place = torch.arange(self.group, device=groups.device)
        first = chunk + groups - chunk // self.group
        return first[:, None] + place * stride[:, None]

    def _maxima(self, queries: torch.Tensor, itself: torch.Tensor | None) -> torch.Tensor:
        """[n, groups] the greatest product of each group: anchors that are a stride apart."""
        found = queries.new_empty(len(queries), len(self.anchors) // self.group)
        kept = queries.new_empty(len(queries) * min(self.chunk, len(self.anchors)))
        for start in range(0, len(self.anchors), self.chunk):
            part = self.anchors[start : start + self.chunk]
            scores = kept[: len(queries) * len(part)].view(len(queries), len(part))
            torch.mm(queries, part.T, out=scores)
            scores[:, max(0, self.count - start) :] = -torch.inf
            if itself is not None:
                rows = ((start <= itself) & (itself < start + len(part))).nonzero()[:, 0]
                scores[rows, itself[rows] - start] = -torch.inf
            groups = len(part) // self.group
            slots = found[:, start // self.group : start // self.group + groups]
            torch.amax(scores.view(len(queries), self.group, groups), dim=1, out=slots)
        return found

    def _least(
        self, queries: torch.Tensor, rounded: torch.Tensor, maxima: torch.Tensor, k: int
    ) -> torch.Tensor:
        """[n] the least product in the scan that one of the k nearest can have.

        The k greatest maxima are products of k anchors, all of which are at least the k-th.
        """
        if k > maxima.shape[1]:
            return maxima.new_full((len(queries),), -torch.inf)
        best = maxima.amax(1) if k == 1 else maxima.topk(k, dim=1).values[:, -1]
        length = queries.norm(dim=1)
        summed = queries.shape[1] * 2.0**-24  # the error of a sum in float32
        moved = (queries - rounded.float()).norm(dim=1) * (self.longest + self.error)
        bound = moved + length * (self.error + summed * self.longest)
        # Three results are rounded: the best, one beside it, and this least one.
        relative = 3.1 * torch.finfo(maxima.dtype).eps / 2
        least: torch.Tensor = best.float() - 2.1 * bound - relative * best.float().abs()
        return least.to(maxima.dtype)


def ready(anchors: torch.Tensor, dtype: torch.dtype) -> Scan:
    """Anchors [m, width] in float32, ready to be scanned in this precision."""
    block, chunk, group = sizes(anchors.is_cuda)
    rounded, padding = anchors.to(dtype), -len(anchors) % group
    pairs = zip(torch.split(anchors, chunk), torch.split(rounded, chunk), strict=True)
    error = max(float((plain - near.float()).norm(dim=1).max()) for plain, near in pairs)
    longest = float(torch.linalg.vector_norm(anchors, dim=1).max())
    if padding:  # without, float32 is no copy
        rounded = torch.nn.functional.pad(rounded, (0, 0, 0, padding))
    return Scan(rounded, len(anchors), error, longest, block, chunk, group)


def sizes(cuda: bool) -> tuple[int, int, int]:
    """Block, chunk and group: on a CPU a block's products with a chunk stay in the second-level
    cache; on CUDA they are long enough to fill the card."""
    return (16_384, 65_536, 16) if cuda else (512, 1024, 8)


@cache
def bfloat16_is_faster(device: str) -> bool:
    """Whether this machine multiplies in bfloat16 in hardware, and a trial is faster in it."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if not any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
        return False
    with torch_threads(1):  # as the scan will run
        return _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    """The least time of a few scans of a block."""
    anchors = torch.nn.functional.normalize(torch.rand(2048, 384))
    scan, took = ready(anchors, dtype), []
    for _ in range(4):
        before = time.perf_counter()
        scan.near_groups(anchors[: scan.block], 1, None)
        took.append(time.perf_counter() - before)
    return min(took)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """In here, torch has so many threads a product, also in Python threads that begin in here."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Whatever the process allows, products in here are as precise as their type."""
    flags = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision(), flags.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    flags.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        flags.allow_bf16_reduced_precision_reduction = before[1]
