"""The four pictures that say whether the labels can be trusted.

scorecard, columns → [label_plots] → page/labels.html
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaif.report.browse import Browse
from rlaif.report.charts import Bar, Dot, histogram
from rlaif.report.figures import Plain
from rlaif.report.formats import number

SIDE = 260.0
"""The inner side of the reliability diagram, in its own units."""
_MARGIN_BINS = 20


class Histogram(NamedTuple):
    """Bars, where the first begins and the last ends, and how many things they count."""

    bars: list[Bar]
    first: str
    last: str
    n: int


class Reliability(NamedTuple):
    """A reliability diagram.

    Attributes:
        raw, fitted: a dot a bin: what was said, and how often it was right.
        ticks: (place, label) from the left, and from the bottom.
    """

    raw: list[Dot]
    fitted: list[Dot]
    ticks: list[tuple[float, str]]


class LabelPlots(NamedTuple):
    """The pictures; None where there is nothing to see yet."""

    reliability: Reliability | None
    probabilities: Histogram | None
    margins: Histogram | None
    confidences: Histogram | None


def label_plots(found: Browse, card: Plain) -> LabelPlots:
    """The pictures of a run's labels: of the verdicts, and of the pairs that were kept."""
    columns = found.whole
    pairs = (columns.kind == 0) & (columns.reason == 0)
    tenths = [f"{i / 10:.1f}" for i in range(11)]
    return LabelPlots(
        reliability(card),
        _histogram(found.read.histogram.tolist(), tenths),
        _of_margins(columns.margin[pairs]),
        _of_confidences(columns.confidence[pairs]),
    )


def reliability(card: Plain) -> Reliability | None:
    """The diagram of a scorecard, from just below its least figure to 1; None without bins."""
    raw, fitted = (_bins(card, key) for key in ("raw", "calibrated"))
    if not raw:
        return None
    least = min(min(said, right) for said, right, _ in [*raw, *fitted])
    # Tenths, and not fewer than two of them: of a good judge all bins lie in the last one.
    low = min(0.8, math.floor(10 * least + 1e-9) / 10)
    step = 0.05 if low >= 0.8 else 0.1
    ticks = [low + i * step for i in range(round((1 - low) / step) + 1)]
    return Reliability(
        _dots(raw, low),
        _dots(fitted, low),
        [(_place(tick, low), f"{tick:.2f}" if step < 0.1 else f"{tick:.1f}") for tick in ticks],
    )


_Bin = tuple[float, float, int]
"""Mean confidence, share right, rows."""


def _bins(card: Plain, key: str) -> list[_Bin]:
    bins = (card.get(key) or {}).get("bins") or []
    return [(float(said), float(right), int(rows)) for said, right, rows in bins]


def _dots(bins: Sequence[_Bin], low: float) -> list[Dot]:
    return [
        Dot(_place(said, low), SIDE - _place(right, low), None, None,
            f"said {100 * said:.1f} %, right {100 * right:.1f} % of {rows:,}")
        for said, right, rows in bins
    ]  # fmt: skip


def _place(share: float, low: float) -> float:
    return SIDE * (share - low) / (1 - low)


def _of_margins(margins: NDArray[np.float32]) -> Histogram | None:
    known = margins[np.isfinite(margins)].astype(float)  # between two float32 there is no edge
    if not len(known):
        return None
    counts, edges = np.histogram(known, _MARGIN_BINS)
    return _histogram(counts.tolist(), [number(float(edge)) for edge in edges])


def _of_confidences(confidences: NDArray[np.float32]) -> Histogram | None:
    known = confidences[np.isfinite(confidences)]
    low = 0.0 if len(known) and known.min() < 0.5 else 0.5
    edges = np.linspace(low, 1, 11)
    counts = np.histogram(known, edges)[0]
    return _histogram(counts.tolist(), [f"{edge:.2f}" for edge in edges])


def _histogram(counts: Sequence[int], edges: Sequence[str]) -> Histogram | None:
    if not sum(counts):
        return None
    return Histogram(histogram(counts, edges), edges[0], edges[-1], sum(counts))
