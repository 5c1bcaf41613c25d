"""A scorecard as people see it: tables side by side, a picture, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from rlaif.evaluate.scorecard import BINS, Confidence, Scorecard
from rlaif.intervals import Rate
from rlaif.run_folder import RunFolder, os_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS = " ▁▂▃▄▅▆▇█"


def name(card: Scorecard) -> str:
    """How the judge was asked, in a word or two."""
    return f"{card.mode} + reasoning" if card.reasoning else card.mode


def print_scorecards(cards: Sequence[Scorecard], console: Console) -> None:
    """One column for each way of asking, and the groups below."""
    table = Table(title="The judge on labelled comparisons")
    table.add_column("")
    for card in cards:
        table.add_column(name(card), justify="right")
    for row in zip(*map(_lines, cards), strict=True):
        table.add_row(row[0][0], *(cell for _, cell in row))
    console.print(table)
    for what in ("by_principle", "by_subset"):
        _print_groups(what, cards, console)


def _lines(card: Scorecard) -> list[tuple[str, str]]:
    cost, calibrated = card.cost, card.calibrated
    labels = max(1, cost.labels)
    return [
        ("comparisons", str(card.comparisons)),
        ("accuracy", _rate(card.accuracy)),
        ("abstained", _percent(card.abstention_rate)),
        ("ties", str(card.tied)),
        ("label turns with the order", _rate(card.flip_rate)),
        ("first place won in both orders", _percent(card.first_both)),
        ("second place won in both orders", _percent(card.second_both)),
        ("calibration error, raw", _confidence(card.raw)),
        ("calibration error, calibrated", _confidence(calibrated) if calibrated else "too few"),
        ("label is the longer one", _rate(card.length.labels)),
        ("… and should be", _rate(card.length.gold)),
        ("mass on the label words", f"{card.coverage[0]:.3f}, at least {card.coverage[1]:.3f}"),
        ("probabilities given, 0 to 1", histogram_line(card.histogram)),
        ("tokens a label", f"{(cost.prompt_tokens + cost.generated_tokens) / labels:.0f}"),
        ("labels a second", f"{cost.labels / cost.seconds:.0f}" if cost.seconds else "–"),
        ("money a label", "–" if cost.money is None else f"{cost.money / labels:.6f}"),
    ]  # fmt: skip


def _print_groups(what: str, cards: Sequence[Scorecard], console: Console) -> None:
    names = sorted({n for card in cards for n in getattr(card, what)})
    if len(names) < 2:
        return
    table = Table(title="Accuracy " + what.replace("_", " "))
    table.add_column(what.removeprefix("by_"))
    for card in cards:
        table.add_column(name(card), justify="right")
    for group in names:
        cells = [getattr(card, what).get(group) for card in cards]
        table.add_row(group, *("–" if c is None else _rate(c) for c in cells))
    console.print(table)


def histogram_line(counts: Sequence[int]) -> str:
    """Ten counts as ten bars: a judge that always says the same is one tall bar."""
    most = max([*counts, 1])
    return "".join(_BARS[math.ceil(8 * count / most)] for count in counts)


def _rate(found: Rate) -> str:
    if not found.rows:
        return "–"
    return f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"


def _confidence(found: Confidence) -> str:
    return (
        "–" if math.isnan(found.error) else f"{found.error:.3f} ({found.low:.3f}–{found.high:.3f})"
    )


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def to_json(card: Scorecard) -> dict[str, Any]:
    """A scorecard as plain data; a figure that does not exist is null."""
    return dict(_plain(asdict(card)))


def from_json(data: Mapping[str, Any]) -> Scorecard:
    """The scorecard that `to_json` wrote.

    Raises:
        pydantic.ValidationError: it did not.
    """
    return TypeAdapter(Scorecard).validate_python(_with_nan(data))


_MAY_BE_NONE = ("calibrated", "money")


def _with_nan(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {k: _with_nan(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_with_nan(v) for v in value)
    return math.nan if value is None and key not in _MAY_BE_NONE else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save(cards: Sequence[Scorecard], folder: Path) -> None:
    """Write `scorecard.json` and `scorecard.png`.

    Raises:
        JournalError: they cannot be written.
    """
    text = json.dumps([to_json(card) for card in cards], indent=2)
    file = RunFolder(folder).create().root / "scorecard.json"
    with os_errors(file, "written"):
        file.write_text(text + "\n", encoding="utf-8", newline="\n")
        picture(cards, folder / "scorecard.png")


def picture(cards: Sequence[Scorecard], path: Path) -> None:
    """A row for each way of asking: reliability before and after, answers given, accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6 * len(cards)), layout="constrained")
    axes = figure.subplots(len(cards), 3, squeeze=False)
    for card, (reliability, answers, groups) in zip(cards, axes, strict=True):
        _draw_reliability(reliability, card)
        _draw_answers(answers, card)
        _draw_groups(groups, card)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _draw_reliability(axes: Axes, card: Scorecard) -> None:
    axes.plot([0.5, 1], [0.5, 1], color="0.7", linewidth=1)
    for found, label, colour in (
        (card.raw, "raw", "#c44e52"), (card.calibrated, "calibrated", "#4c72b0"),
    ):  # fmt: skip
        if found is not None and found.bins:
            confidence, right, _ = zip(*found.bins, strict=True)
            axes.plot(confidence, right, "o-", color=colour, markersize=4,
                      label=f"{label}: error {found.error:.3f}")  # fmt: skip
    axes.set(title=f"{name(card)}: how often a label is right", xlabel="confidence",
             ylabel="share right")  # fmt: skip
    if card.raw.bins:  # a legend of nothing is a warning
        axes.legend(frameon=False)


def _draw_answers(axes: Axes, card: Scorecard) -> None:
    axes.bar([(i + 0.5) / BINS for i in range(BINS)], card.histogram, 0.9 / BINS, color="#55a868")
    axes.set(title="answers given", xlabel="probability of yes, or of A", ylabel="answers")


def _draw_groups(axes: Axes, card: Scorecard) -> None:
    groups = card.by_principle if len(card.by_principle) > 1 else card.by_subset
    names = list(groups)[::-1]
    for place, group in enumerate(names):
        r = groups[group]
        axes.plot([r.low, r.high], [place, place], color="#4c72b0", linewidth=2)
        axes.plot([r.value], [place], "o", color="#4c72b0", markersize=5)
    axes.axvline(0.5, color="0.7", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set(title=f"accuracy {_rate(card.accuracy)}", xlim=(0, 1.02), xlabel="share right, 95 %")
