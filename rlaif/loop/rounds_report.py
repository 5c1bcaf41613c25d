"""A loop's rounds as a table in the terminal: what `rlaif loop` prints at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rlaif.loop.figures import Figure, Figures
from rlaif.loop.state import State


def print_rounds(state: State, console: Console | None = None) -> None:
    """A row a round, and how the loop ended."""
    console = console or Console()
    shown = [("before", state.base)] if state.base is not None else []
    rows: list[tuple[str, Figures]] = [(n, f) for n, f in shown if f is not None]
    rows += [(f"round {f.round}", f) for f in state.rounds]
    table = Table("", "judge", "judge right", "pairs", "win rate", "metric", "mean tokens", "tail")
    for name, f in rows:
        labels = f.labels or {}
        tail = f.collapsed("tail_coverage")
        table.add_row(
            name, f.judge if f.labels else "", _figure(f.judge_accuracy),
            str(labels.get("pairs", "")), _figure(f.win_rate), _figure(f.metric),
            "" if f.mean_tokens is None else f"{f.mean_tokens:.1f}",
            "" if tail is None else f"{tail:.2f}",
        )  # fmt: skip
    console.print(table)
    best = "no round is better than the student it began with"
    if state.best is not None:
        best = f"best: round {state.best.round}, in best/"
    ending = "" if state.stopped is None else f"stopped: {state.stopped.reason}; "
    console.print(ending + best, highlight=False)


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"
