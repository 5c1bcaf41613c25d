"""Are two samples one distribution? Statistics of tables, their interval and their null.

Called by drift.py, which makes the tables: a row a text, a column what is counted (a cell of
embedding space, an n-gram). A text is the unit: its n-grams are not independent of each other, so
whole rows change sides in the null and are resampled in the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from rlaif.errors import DataError

Table: TypeAlias = csr_matrix
"""[texts, columns] counts, float32."""

Floats = NDArray[np.float64]

_PSEUDO_COUNT = 0.5
_BLOCK = 20_000_000  # weights in memory at once: 80 MB


Measure = Callable[[Floats, Floats], Floats]
"""Counts of both sides, [columns, draws], → [statistics, draws]."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number that tells two samples apart, beside what chance makes of it.

    Attributes:
        value: as measured; the more, the further apart.
        low, high: its 95 % interval, less what chance adds to every such number; 0 or more.
        null_mean: the mean over relabelled samples of the same sizes.
        limit: what it takes for an alarm; all statistics of a test together pass theirs by
            chance in no more than `level` of the tests.
        p_value: of this one alone, one-sided.
    """

    value: float
    low: float
    high: float
    null_mean: float
    limit: float
    p_value: float

    @property
    def over(self) -> bool:
        """Is it more than chance makes?"""
        return self.value > self.limit


@dataclass(frozen=True, slots=True)
class Outcome:
    """Statistics that were tested together.

    Attributes:
        statistics: those of the first table, of the next, and so on.
        p_value: of the largest of them, against the largest of every relabelling.
    """

    statistics: tuple[Statistic, ...]
    p_value: float

    @property
    def alarm(self) -> bool:
        """Is any over its limit?"""
        return any(statistic.over for statistic in self.statistics)


def divergences(human: Floats, synthetic: Floats) -> Floats:
    """KL(human ‖ synthetic) and KL(synthetic ‖ human) of counts, in nats.

    Half a count is added to each column (Krichevsky & Trofimov 1981), so that neither is infinite.

    Args:
        human, synthetic: [columns, ...].

    Returns:
        [2, ...], 0 or more; 0 where both have the same shares.
    """
    p, q = (counts + _PSEUDO_COUNT for counts in (human, synthetic))
    p, q = p / p.sum(0), q / q.sum(0)
    ratio = np.log(p / q)
    return np.maximum([(p * ratio).sum(0), -(q * ratio).sum(0)], 0.0)


def crowding(human: Floats, synthetic: Floats) -> Floats:
    """The largest excess of synthetic texts in one column, in its standard deviations.

    A divergence adds up all columns; one topic alone moves this further. Each text stands in one
    column, so the counts are binomial.

    Args:
        human, synthetic: [columns, ...].

    Returns:
        [1, ...].
    """
    both = human + synthetic
    share = synthetic.sum(0) / both.sum(0)
    spread = np.sqrt(np.maximum(both * share * (1 - share), 1e-12))
    most: Floats = ((synthetic - both * share) / spread).max(0, keepdims=True)
    return most


def outcome(
    tables: Sequence[tuple[Table, Sequence[Measure]]],
    synthetic: NDArray[np.bool_],
    *,
    permutations: int = 400,
    resamples: int = 200,
    level: float = 0.025,
    seed: int = 0,
) -> Outcome:
    """Test whether the synthetic rows are drawn as the human ones are.

    The null relabels rows at random and keeps the sizes (Fisher's permutation test). Statistics
    are put on one scale by the median and the upper point of their null; the largest of them is
    compared with the largest of every relabelling (Westfall & Young 1993), so many cost no more
    false alarms than one. The interval is the basic bootstrap (Davison & Hinkley 1997, 5.2).

    Args:
        tables: of the same rows, and what is measured on each.
        synthetic: [texts] which rows are synthetic.
        permutations: relabellings; 1 / level of them or more.
        resamples: of the bootstrap; 0 gives intervals of NaN.
        level: false alarms that are allowed, as a share of tests.
        seed: of the draws.

    Raises:
        DataError: too few permutations for the level, or a level that is no share.
    """
    place = _upper(permutations, level)
    rng = np.random.default_rng(seed)
    measured = _measured(tables, [_labels(synthetic)])[:, 0]
    null = _measured(tables, _relabelled(synthetic, permutations, rng))
    # What was measured counts as one of the relabellings: only so is the test exact.
    every = np.sort(np.column_stack([null, measured]), axis=1)
    middle = np.median(every, axis=1)
    scale = np.maximum(every[:, place] - middle, 1e-12)
    largest = np.sort(((null - middle[:, None]) / scale[:, None]).max(0))
    limit = middle + scale * largest[place]
    low = high = np.full_like(measured, np.nan)
    if resamples:
        low, high = _basic(measured, _measured(tables, _resampled(synthetic, resamples, rng)))
    alone = (1 + (null >= measured[:, None]).sum(1)) / (permutations + 1)
    found = zip(measured, low, high, null.mean(1), limit, alone, strict=True)
    together = (1 + (largest >= ((measured - middle) / scale).max()).sum()) / (permutations + 1)
    return Outcome(tuple(Statistic(*map(float, s)) for s in found), float(together))


def _upper(permutations: int, level: float) -> int:
    """The place, from 0, of the upper point among so many sorted values of a null."""
    if not 0 < level < 1:
        raise DataError("must be between 0 and 1", key="level", value=level)
    place = math.ceil((1 - level) * (permutations + 1)) - 1
    if place >= permutations:
        raise DataError(
            f"too few for a level of {level}", key="permutations", value=permutations,
            mend=f"ask for {math.ceil(1 / level)} or more",
        )  # fmt: skip
    return place


Weights = tuple[NDArray[np.float32], NDArray[np.float32]]
"""[texts, draws] how often each row counts as human, and as synthetic."""


def _measured(
    tables: Sequence[tuple[Table, Sequence[Measure]]], draws: Iterable[Weights]
) -> Floats:
    """[statistics, draws]."""
    columns = [(table.T.tocsr(), measures) for table, measures in tables]
    blocks = []
    for human, synthetic in draws:
        counts = [(c @ human, c @ synthetic, measures) for c, measures in columns]
        blocks.append(np.concatenate([measure(h, s) for h, s, ms in counts for measure in ms]))
    return np.concatenate(blocks, axis=1)


def _labels(synthetic: NDArray[np.bool_]) -> Weights:
    label = synthetic.astype(np.float32)[:, None]
    return 1 - label, label


def _relabelled(
    synthetic: NDArray[np.bool_], times: int, rng: np.random.Generator
) -> Iterator[Weights]:
    for size in _blocks(times, len(synthetic)):
        rows = np.repeat(synthetic[None], size, axis=0)
        label = np.ascontiguousarray(rng.permuted(rows, axis=1).T, dtype=np.float32)
        yield 1 - label, label


def _resampled(
    synthetic: NDArray[np.bool_], times: int, rng: np.random.Generator
) -> Iterator[Weights]:
    for size in _blocks(times, len(synthetic)):
        yield _redrawn(~synthetic, size, rng), _redrawn(synthetic, size, rng)


def _redrawn(rows: NDArray[np.bool_], times: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """[texts, times] as many draws of these rows, with replacement, as there are."""
    which = np.flatnonzero(rows)
    size = len(which)
    drawn = rng.integers(0, size, (times, size)) + size * np.arange(times)[:, None]
    counted = np.bincount(drawn.ravel(), minlength=times * size).reshape(times, size)
    weights = np.zeros((len(rows), times), np.float32)
    weights[which] = counted.T
    return weights


def _blocks(times: int, rows: int) -> Iterator[int]:
    most = max(1, _BLOCK // max(1, rows))
    for start in range(0, times, most):
        yield min(most, times - start)


def _basic(measured: Floats, drawn: Floats) -> tuple[Floats, Floats]:
    """The 95 % interval of each: what resampling adds is taken off, not added once more."""
    low, high = np.quantile(drawn, (0.025, 0.975), axis=1)
    return np.maximum(2 * measured - high, 0.0), np.maximum(2 * measured - low, 0.0)
