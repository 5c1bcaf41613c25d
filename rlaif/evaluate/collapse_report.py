"""The watch over collapse as people see it: a table, a picture, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from rlaif.evaluate.collapse import ANCHORS, MEASURES, CollapseRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arms = Mapping[str, Sequence[CollapseRow]]
"""What `watch` found for each of several ways to make rounds, by name; at one size, all of them."""

TITLES: Mapping[str, str] = {
    "token_entropy": "token entropy (nats)",
    "distinct_1": "different words",
    "distinct_2": "different word pairs",
    "distinct_3": "different word triples",
    "vendi": "Vendi score",
    "topic_entropy": "topic entropy",
    "tail_coverage": "rare regions reached",
    "drift": "drift from the anchors (nats)",
    "mean_tokens": "tokens a text",
}
_COLOURS = ("#4c72b0", "#c44e52", "#55a868", "#8172b2", "#937860", "#64b5cd")


def print_collapse(arms: Arms, console: Console) -> None:
    """A row for each figure, a column for each round; what has no figure tells why below."""
    for name, rows in arms.items():
        table = Table(title=f"Collapse: {name}" if name else "Collapse")
        table.add_column("")
        for row in rows:
            table.add_column(row.name, justify="right")
        table.add_row("texts", *(str(row.texts) for row in rows))
        for measure in MEASURES:
            table.add_row(TITLES[measure], *(_cell(row, measure) for row in rows))
        console.print(table)
        _print_notes(rows, console)


def _print_notes(rows: Sequence[CollapseRow], console: Console) -> None:
    for row in rows:
        if row.unusable:
            console.print(f"{row.name}: {row.unusable} of {row.texts} texts have no embedding")
        reasons: dict[str, list[str]] = {}
        for measure, reading in row.readings.items():
            if reading.reason and row.name != ANCHORS:
                reasons.setdefault(reading.reason, []).append(TITLES[measure])
        for reason, names in reasons.items():
            console.print(f"{row.name}: no {', '.join(names)}: {reason}")
    if rows:
        console.print(
            f"measured at {rows[0].at_texts} texts and {rows[0].at_tokens} tokens; "
            "a drift with ! is more than chance"
        )


def _cell(row: CollapseRow, measure: str) -> str:
    reading = row.readings[measure]
    if reading.value is None:
        return "–"
    return _number(reading.value) + ("!" if measure == "drift" and row.drifted else "")


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def save(arms: Arms, folder: Path) -> None:
    """Write `collapse.json` and `collapse.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: [row.as_dict() for row in rows] for name, rows in arms.items()}
    text = json.dumps(plain, indent=2)
    (folder / "collapse.json").write_text(text + "\n", encoding="utf-8", newline="\n")
    picture(arms, folder / "collapse.png")


def picture(arms: Arms, path: Path) -> None:
    """One small plot a figure: a line an arm over its rounds, and the anchors' own value dashed.

    A round without a figure is a gap in the line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.4), layout="constrained")
    plots = figure.subplots(3, 3).ravel()
    for axes, measure in zip(plots, MEASURES, strict=True):
        _draw(axes, measure, arms)
    if any(name for name in arms):
        handles, labels = plots[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _draw(axes: Axes, measure: str, arms: Arms) -> None:
    for number, (name, rows) in enumerate(arms.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        rounds = [row for row in rows if row.name != ANCHORS]
        places = range(1, len(rounds) + 1)
        readings = [row.readings[measure] for row in rounds]
        axes.plot(places, [_y(r.value) for r in readings], "o-", color=colour, markersize=4,
                  label=name or "rounds")  # fmt: skip
        axes.fill_between(places, [_y(r.low) for r in readings], [_y(r.high) for r in readings],
                          color=colour, alpha=0.15, linewidth=0)  # fmt: skip
        axes.set_xticks(places, [row.name for row in rounds])
    if (level := _anchor_level(measure, arms)) is not None:
        axes.axhline(level, color="0.35", linewidth=1, linestyle="--", label="anchors")
    axes.set_title(TITLES[measure], fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _anchor_level(measure: str, arms: Arms) -> float | None:
    """The anchors' own value; their drift from themselves is 0."""
    if measure == "drift":
        return 0.0
    own = (row.readings[measure] for rows in arms.values() for row in rows if row.name == ANCHORS)
    return next((reading.value for reading in own), None)


def _y(value: float | None) -> float:
    return float("nan") if value is None else value
