"""What an edit of a constitution does, as people see it: counts, and the widest changes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlaif.evaluate.changed_label import Change
from rlaif.evaluate.constitution_diff import (
    GONE,
    NEW,
    ONE_SIDED,
    OTHER,
    SAME,
    TURNED,
    Diff,
)

_WHY = 3
"""So many principles are named of those that moved a comparison."""


def print_diff(
    diff: Diff, edits: Sequence[tuple[str, str]], judged: Sequence[str], console: Console
) -> None:
    """The edit, what was judged for it, the counts, and examples side by side.

    Args:
        diff: the figures.
        edits: what was edited, from `edits`.
        judged: ids of the principles that a model was asked about.
        console: where to.
    """
    for id_, what in edits or [("", "no principle was edited")]:
        console.print(f"{id_}: {what}" if id_ else what, markup=False, highlight=False)
    asked = ", ".join(judged) or "nothing: every verdict was stored"
    console.print(f"judged for this: {asked}", markup=False, highlight=False)
    console.print(_counts(diff))
    share = f" ({diff.relabelled / diff.records:.1%})" if diff.records else ""
    console.print(f"{diff.relabelled} of {diff.records} prompts are labelled otherwise{share}")
    if diff.examples:
        console.print(_examples(diff.examples))


def _counts(diff: Diff) -> Table:
    table = Table("", SAME, "changed", GONE, NEW)
    for id_, said in diff.verdicts.items():
        one = f"{said[ONE_SIDED]} {ONE_SIDED}" if said[ONE_SIDED] else ""
        table.add_row(f"verdicts on {id_}", str(said[SAME]), str(said[TURNED]), one, "")
    for name, said, changed in (("picks", diff.picks, OTHER), ("pairs", diff.pairs, TURNED)):
        table.add_row(name, *(str(said[what]) for what in (SAME, changed, GONE, NEW)))
    return table


def _examples(changes: Sequence[Change]) -> Table:
    table = Table("prompt", "OLD chooses", "NEW chooses", "nats", "moved by", show_lines=True)
    for change in changes:
        why = "\n".join(f"{id_} {nats:+.1f}" for id_, nats in change.why[:_WHY])
        texts = (_short(text) for text in (change.prompt, change.old, change.new))
        table.add_row(*texts, f"{change.swing:.1f}", why)
    return table


def _short(text: str, most: int = 240) -> str:
    return escape(text if len(text) <= most else f"{text[: most - 1]}…")
