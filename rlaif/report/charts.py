"""Where the marks of the page's charts lie; the template draws them in the page's own colours.

figures → [charts] → page/charts.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.report.figures import Fig, Story, fig

MEASURES: Mapping[str, tuple[str, str]] = {
    "token_entropy": ("Token entropy", "nats"),
    "distinct_1": ("Different words", "share of all words"),
    "distinct_2": ("Different word pairs", "share of all pairs"),
    "distinct_3": ("Different word triples", "share of all triples"),
    "vendi": ("Vendi score", "texts that differ"),
    "topic_entropy": ("Topic entropy", "1 is even"),
    "tail_coverage": ("Rare regions reached", "share"),
    "drift": ("Drift from the anchors", "nats"),
    "mean_tokens": ("Length", "tokens a text"),
}
"""Each measure of collapse: its title and its unit."""

PROGRESS: Mapping[str, tuple[str, str]] = {
    "metric": ("Held-out metric", "share"),
    "kept": ("Principles kept", "share, by the judge"),
    "win_rate": ("Win rate", "over the student before"),
    "judge_accuracy": ("Judge right", "share of labelled comparisons"),
}
"""Each measure of progress, likewise."""


class Bar(NamedTuple):
    """A bar of a histogram, in per cent of the plot; y counts from the top."""

    x: float
    y: float
    width: float
    height: float
    title: str


class Dot(NamedTuple):
    """A point of a chart, in its units, with its interval's ends where it has one."""

    x: float
    y: float
    low: float | None
    high: float | None
    title: str


class Lines(NamedTuple):
    """One small chart: a line over rounds.

    Attributes:
        title, unit: what is measured.
        dots: in order.
        line, band: paths of the line and of its interval.
        anchor: the height of the anchors' own value; None where it is not known.
        anchor_value: that value.
        last: the newest figure.
        ticks: (height, label) of the least and the greatest value.
        labels: (x, label) of the rounds.
        missing: why there is nothing to see.
    """

    title: str
    unit: str
    dots: list[Dot]
    line: str
    band: str
    anchor: float | None
    anchor_value: float | None
    last: Fig | None
    ticks: list[tuple[float, str]]
    labels: list[tuple[float, str]]
    missing: str


WIDTH, HEIGHT = 240.0, 110.0
"""The size of a small chart."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 10.0, 8.0, 20.0


def histogram(counts: Sequence[int], edges: Sequence[str]) -> list[Bar]:
    """Bars for counts; `edges` says where each bar begins, and has one entry more."""
    most, width = max([*counts, 1]), 100 / max(1, len(counts))
    return [
        Bar(i * width, 100 - 100 * n / most, width, 100 * n / most,
            f"{edges[i]} to {edges[i + 1]}: {n:,}")
        for i, n in enumerate(counts)
    ]  # fmt: skip


def path(dots: Sequence[Dot]) -> str:
    """A line through dots."""
    return " ".join(f"{'L' if i else 'M'}{d.x:.1f} {d.y:.1f}" for i, d in enumerate(dots))


def progress(story: Story) -> list[Lines]:
    """How the student and the judge did, round by round, from the student before any round."""
    points = [("start", story.base), *((str(r.number), r.figures) for r in story.rounds)]
    found = []
    for name, (title, unit) in PROGRESS.items():
        rows = [(label, fig(figures.get(name)), "not measured") for label, figures in points]
        if any(figure for _, figure, _ in rows):
            found.append(_lines(title, unit, rows, None))
    return found


def collapse(story: Story) -> list[Lines]:
    """A small chart for each measure of collapse; nothing where none was taken."""
    rounds = [(str(r.number), r.figures.get("collapse") or {}) for r in story.rounds]
    base = story.base.get("collapse")
    rounds = [("start", base), *rounds] if base else rounds
    if not any(row for _, row in rounds):
        return []
    return [
        _lines(title, unit, [_reading(label, row.get(name)) for label, row in rounds],
               _anchor(name, story))
        for name, (title, unit) in MEASURES.items()
    ]  # fmt: skip


def _reading(label: str, reading: Any) -> tuple[str, Fig | None, str]:
    reason = reading.get("reason") if isinstance(reading, Mapping) else None
    return label, fig(reading), reason or "not measured"


def _anchor(name: str, story: Story) -> float | None:
    if name == "drift":
        return 0.0  # of the anchors from themselves
    own = fig(story.anchors.get(name))
    return None if own is None else own.value


def _lines(
    title: str, unit: str, rows: Sequence[tuple[str, Fig | None, str]], anchor: float | None
) -> Lines:
    known = [figure for _, figure, _ in rows if figure is not None]
    if not known:
        reasons = list(dict.fromkeys(reason for *_, reason in rows))
        return Lines(title, unit, [], "", "", None, anchor, None, [], [], "; ".join(reasons))
    low, high = _range(known, anchor)
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(rows) - 1)

    def x(place: int) -> float:
        return _LEFT + step * place if len(rows) > 1 else (WIDTH + _LEFT - _RIGHT) / 2

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    def end(value: float | None) -> float | None:
        return None if value is None else y(value)

    dots = [
        Dot(x(i), y(f.value), end(f.low), end(f.high), f"{label}: {_said(f)}")
        for i, (label, f, _) in enumerate(rows) if f is not None
    ]  # fmt: skip
    every = -(-len(rows) // 6)  # at most six labels: a phone's width has no more
    return Lines(
        title, unit, dots, path(dots), _band(dots),
        None if anchor is None else y(anchor), anchor, known[-1],
        [(y(high), _short(high)), (y(low), _short(low))],
        [(x(i), label) for i, (label, *_) in enumerate(rows) if i % every == 0], "",
    )  # fmt: skip


def _range(known: Sequence[Fig], anchor: float | None) -> tuple[float, float]:
    values = [v for f in known for v in f if v is not None] + ([] if anchor is None else [anchor])
    low, high = min(values), max(values)
    spare = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    # What cannot be below 0 has no axis below it, and a share has none above 1.
    least = max(0.0, low - spare) if low >= 0 else low - spare
    return least, (min(1.0, high + spare) if low >= 0 and high <= 1 else high + spare)


def _band(dots: Sequence[Dot]) -> str:
    both = [d for d in dots if d.low is not None and d.high is not None]
    if len(both) < 2:
        return ""
    there = " ".join(f"{'L' if i else 'M'}{d.x:.1f} {d.high:.1f}" for i, d in enumerate(both))
    back = " ".join(f"L{d.x:.1f} {d.low:.1f}" for d in reversed(both))
    return f"{there} {back} Z"


def _said(figure: Fig) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.4g}"
    return f"{figure.value:.4g} ({figure.low:.4g} to {figure.high:.4g})"


def _short(value: float) -> str:
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) >= 1
        else f"{value:.2f}"
    )
