"""A loop's rounds as a table in the terminal: what `rlaif loop` prints at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rlaif.loop.cards import told
from rlaif.loop.figures import Figures
from rlaif.loop.state import State


def print_rounds(state: State, console: Console | None = None) -> None:
    """A row a round, and how the loop ended."""
    console = console or Console()
    shown = [("before", state.base)] if state.base is not None else []
    rows: list[tuple[str, Figures]] = [(n, f) for n, f in shown if f is not None]
    rows += [(f"round {f.round}", f) for f in state.rounds]
    table = Table()
    for name in ("", "judge", "judge right", "pairs", "win rate", "metric", "mean tokens", "tail"):
        table.add_column(name, overflow="fold")  # a narrow terminal cuts no figure off
    for name, f in rows:
        labels = f.labels or {}
        tail = f.collapsed("tail_coverage")
        table.add_row(
            name, f.judge if f.labels else "", told(f.judge_accuracy),
            str(labels.get("pairs", "")), told(f.win_rate), told(f.metric),
            "" if f.mean_tokens is None else f"{f.mean_tokens:.1f}",
            "" if tail is None else f"{tail:.2f}",
        )  # fmt: skip
    console.print(table)
    best = "no round is better than the student it began with"
    if state.best is not None:
        best = f"best: round {state.best.round}, in best/"
    ending = "" if state.stopped is None else f"stopped: {state.stopped.reason}; "
    console.print(ending + best, highlight=False)
