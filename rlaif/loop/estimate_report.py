"""What was foreseen and what came of it, as tables in the terminal.

Estimate → print_estimate;  RUN/estimate.json, RUN/cost.jsonl → beside → print_beside
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlaif.loop.estimate import Estimate, LabelCost
from rlaif.loop.places import LoopFolder
from rlaif.loop.spending import Spent, read_cost, total


@dataclass(frozen=True, slots=True)
class Beside:
    """A stage of a round.

    Attributes:
        round, stage: which; the seed's round is -1.
        foreseen: None where no estimate was made.
        real: None where it has not run.
    """

    round: int
    stage: str
    foreseen: Spent | None
    real: Spent | None


def beside(folder: Path) -> list[Beside]:
    """What a loop's stages were to take beside what they took, in the order of the rounds.

    Lines of a stage that was killed and gone on with add up, and so do those of attempts that were
    rolled back.

    Args:
        folder: the loop's, with or without an estimate.
    """
    places = LoopFolder(folder)
    foreseen, real = _by_stage(_foreseen(places.estimate)), _by_stage(read_cost(places.cost))
    keys = sorted(dict.fromkeys([*foreseen, *real]), key=lambda key: key[0])
    return [Beside(*key, foreseen.get(key), real.get(key)) for key in keys]


def _foreseen(file: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(file.read_bytes())["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _by_stage(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], Spent]:
    found: dict[tuple[int, str], Spent] = {}
    for line in lines:
        key = int(line.get("round", 0)), str(line.get("stage", ""))
        found[key] = found.get(key, Spent()) + total([dict(line)])
    return found


def print_estimate(estimate: Estimate, console: Console) -> None:
    """A row a stage, the sums, and what a label costs beside a person's."""
    table = _table(
        "requests", "computed tokens", "generated tokens", "time", "device time", "money"
    )
    for row in estimate.rows:
        table.add_row(_round(row.round), row.stage, *_cells(row.spent))
    table.add_section()
    table.add_row("all", "", *_cells(sum((r.spent for r in estimate.rows), Spent())))
    console.print(table)
    console.print(_label(estimate.label), highlight=False)
    console.print(
        f"the probe itself took {_time(estimate.probe_seconds)}; saving checkpoints and "
        "evaluating within a training are not in it",
        highlight=False,
    )


def print_beside(folder: Path, console: Console | None = None) -> None:
    """The real figures of each stage beside the foreseen ones; nothing where none were foreseen."""
    rows = beside(folder)
    if not any(row.foreseen for row in rows):
        return
    console = console or Console()
    real, foreseen = (
        sum((s for row in rows if (s := getattr(row, name)) is not None), Spent())
        for name in ("real", "foreseen")
    )
    names = ["tokens", "foreseen", "time", "foreseen", "money", "foreseen"]
    if not real.money and not foreseen.money:
        names = names[:4]
    table = _table(*names)
    for row in rows:
        cells = _pair(row.real, row.foreseen)[: len(names)]
        table.add_row(_round(row.round), row.stage, *cells)
    table.add_section()
    table.add_row("all", "", *_pair(real, foreseen)[: len(names)])
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table("round", "stage")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _round(number: int) -> str:
    return "" if number < 0 else str(number)


def _cells(spent: Spent) -> list[str]:
    counts = (spent.requests, spent.computed_tokens, spent.generated_tokens)
    return [
        *(f"{round(n):,}" if n else "" for n in counts),
        _time(spent.seconds), _time(spent.device_seconds), _money(spent.money),
    ]  # fmt: skip


def _pair(real: Spent | None, foreseen: Spent | None) -> list[str]:
    both = (real, foreseen)
    return [
        *("" if s is None or not s.tokens else f"{round(s.tokens):,}" for s in both),
        *("" if s is None else _time(s.seconds) for s in both),
        *("" if s is None else _money(s.money) for s in both),
    ]


def _label(label: LabelCost) -> str:
    """One line about the cost of a label."""
    price = "no prices in the recipe" if label.money_each is None else f"{label.money_each:.4g}"
    return (
        f"an accepted label: {label.tokens_each:,.0f} tokens, {price} (a person's: "
        f"{label.human_low:g} to {label.human_high:g}); {label.pass_rate:.1%} of the prompts "
        "bring one"
    )


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _money(money: float) -> str:
    return f"{money:.4g}" if money else ""
