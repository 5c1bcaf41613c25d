"""How much goes into one forward pass, and what happens when it was too much."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Batch = Sequence[int]
Plan = Sequence[tuple[Batch, Callable[[], None]]]
"""Batches of rows, each with the work it is."""

T = TypeVar("T")


class Budget:
    """A number of tokens that is halved when the device's memory runs out.

    Args:
        tokens: the most tokens in one batch.
        name: the model's name, for the warning.
        workers: how many batches are worked on at once, the processor's threads shared out among
            them: a small model leaves most of a pass's threads waiting.
    """

    def __init__(self, tokens: int, name: str, workers: int = 1) -> None:
        self.tokens, self.name, self.workers = tokens, name, workers
        self.halvings = 0

    def run(
        self,
        indices: Batch,
        plan: Callable[[Batch, int], Plan],
    ) -> list[int]:
        """Run all rows in batches; what did not fit goes in smaller ones.

        Args:
            indices: the rows.
            plan: from rows and a number of tokens to batches, each with the work it is.

        Returns:
            The rows that did not fit even alone.
        """
        left = set(indices)
        too_large: list[int] = []
        while left:
            planned = plan(sorted(left), self.tokens)
            with self._each([work for _, work in planned]) as fits:
                for (batch, _), fit in zip(planned, fits, strict=True):
                    if not fit:
                        if len(batch) > 1 and self.tokens > 1:
                            self._halve()
                            break
                        too_large.extend(batch)
                    left.difference_update(batch)
        return too_large

    @contextmanager
    def _each(self, works: Sequence[Callable[[], None]]) -> Iterator[Iterator[bool]]:
        """Whether each piece of work fitted, in order, while the work goes on."""
        workers = min(self.workers, len(works))
        if workers < 2:
            yield map(self._fits, works)
            return
        threads = torch.get_num_threads()
        shared = (max(1, threads // workers),)
        with ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=shared
        ) as pool:
            try:
                yield pool.map(torch.inference_mode()(self._fits), works)
            finally:
                pool.shutdown(cancel_futures=True)
                torch.set_num_threads(threads)  # a part of it is common to all threads

    def retry(self, work: Callable[[int], T]) -> T:
        """Run `work(tokens)`, with ever fewer tokens while memory runs out."""
        while self.tokens > 1:
            try:
                return work(self.tokens)
            except RuntimeError as error:
                refuse_other(error)
                self._halve()
        return work(self.tokens)

    @staticmethod
    def _fits(work: Callable[[], None]) -> bool:
        try:
            work()
        except RuntimeError as error:
            refuse_other(error)
            return False
        return True

    def _halve(self) -> None:
        self.tokens = max(1, self.tokens // 2)
        self.halvings += 1
        if self.halvings == 1:
            warnings.warn(
                f"{self.name}: out of memory; going on with batches of {self.tokens} tokens",
                RuntimeWarning,
                stacklevel=2,
            )


def refuse_other(error: RuntimeError) -> None:
    """Raise what is not for want of memory; give back what the device holds on to.

    A CPU's allocator has no error of its own.
    """
    if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
        raise error
    torch.cuda.empty_cache()


def by_length(
    lengths: Sequence[int] | Mapping[int, int], indices: Batch, tokens: int, rows: int
) -> list[list[int]]:
    """Batches of rows of like length: at most `tokens` with padding, and at most `rows` rows."""
    batches: list[list[int]] = []
    for i in sorted(indices, key=lambda i: (lengths[i], i)):
        # Sorted, so that the row at hand is the longest of its batch.
        fits = batches and (len(batches[-1]) + 1) * lengths[i] <= tokens
        if fits and len(batches[-1]) < rows:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
