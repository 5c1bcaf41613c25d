"""One line a principle: what it asks, how often it is kept, how often the judge is right on it.

constitution, figures, columns → [principles] → page.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaif.records import fingerprint
from rlaif.report.columns import NONE, Columns
from rlaif.report.figures import Fig, Plain, Story, fig
from rlaif.report.responses import STEPS, UNKNOWN, Bytes


class Principle(NamedTuple):
    """A principle as the constitution has it."""

    id: str
    text: str
    weight: float
    veto: bool

    @property
    def fingerprint(self) -> str:
        """Names what the judge reads; as `rlaif.constitution.Principle` has it."""
        return fingerprint({"principle": self.text})


class Line(NamedTuple):
    """A principle's line.

    Attributes:
        before, after: shares kept, 0 to 1, of the student's answers; for labels alone, of the
            rejected and of the chosen responses.
        judge: share of labelled comparisons that the judge got right.
    """

    principle: Principle
    before: Fig | None
    after: Fig | None
    judge: Fig | None


class Lines(NamedTuple):
    """All principles' lines, and what the two shares are of."""

    lines: list[Line]
    source: str
    before: str
    after: str


def read_principles(constitution: Plain) -> list[Principle]:
    """The principles of a constitution's file, in order."""
    rows = constitution.get("principles")
    found = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    return [
        Principle(str(row.get("id", "")), str(row.get("text", "")).strip(),
                  float(row.get("weight", 1)), bool(row.get("veto", False)))
        for row in found
    ]  # fmt: skip


def principle_lines(
    principles: Sequence[Principle], story: Story, columns: Columns, card: Plain
) -> Lines:
    """The lines, from the best source there is: a held-out metric, the judge, or the labels."""
    right = card.get("by_principle") or {}
    for key, source in (
        ("metric_by_principle", "share kept, by the recipe's held-out metric"),
        ("kept_by_principle", "share kept, by the judge, on evaluation prompts"),
    ):
        after = story.after.get(key)
        if after:
            before = story.base.get(key) or {}
            shares = [(fig(before.get(p.id)), fig(after.get(p.id))) for p in principles]
            return _lines(principles, shares, right, source, "before", "after")
    shares = _of_labels(columns, len(principles))
    if columns.pairwise:
        source = "share of pairs where the chosen response is the better one under the principle"
        return _lines(principles, shares, right, source, "", "chosen")
    source = "share judged to keep the principle, in the preference pairs"
    return _lines(principles, shares, right, source, "rejected", "chosen")


def _lines(
    principles: Sequence[Principle],
    shares: Sequence[tuple[Fig | None, Fig | None]],
    right: Mapping[str, Any],
    source: str,
    before: str,
    after: str,
) -> Lines:
    lines = [
        Line(p, *share, fig(right.get(p.id))) for p, share in zip(principles, shares, strict=True)
    ]
    return Lines(lines, source, before, after)


def _of_labels(columns: Columns, count: int) -> list[tuple[Fig | None, Fig | None]]:
    kept = (columns.kind == 0) & (columns.reason == 0) & (columns.right != NONE)
    if columns.pairwise:
        return [(None, _share(row)) for row in columns.probabilities[:count, kept]]
    left, right = columns.left[kept], columns.right[kept]
    return [
        (_share(columns.probabilities[row, right]), _share(columns.probabilities[row, left]))
        for row in range(count)
    ]


def _share(steps: Bytes) -> Fig | None:
    known: NDArray[np.bool_] = steps[steps != UNKNOWN] > STEPS // 2
    return Fig(float(known.mean())) if len(known) else None
