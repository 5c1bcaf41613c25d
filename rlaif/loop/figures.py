"""What a round has come to, in figures: what the governor decides by and the report shows.

a round's run folder → measure.py → Figures → governor.py, loop.json, trackers
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    @classmethod
    def of(cls, value: float, low: float = math.nan, high: float = math.nan) -> Figure | None:
        """A figure; None for NaN. An end of the interval that is NaN is none."""
        if math.isnan(value):
            return None
        return cls(value, *(None if math.isnan(end) else end for end in (low, high)))


@dataclass(frozen=True, slots=True)
class Figures:
    """One round; or, with `round` -1, the student before any.

    Attributes:
        round, attempt: which.
        judge: who labelled it.
        judge_accuracy: of that judge, on the gate's labelled comparisons.
        student_accuracy: of the round's new student when it is asked to judge them.
        student_passes: whether it would pass the whole gate; None where it was not asked.
        labels: counts of what labelling made.
        scores: of the judge's probabilities, how many in each tenth from 0 to 1.
        win_rate: of the new student over the one that the round began with, by the teacher.
        length_controlled: the same had both answered at the same length.
        kept: judged share of the principles that its answers keep; pointwise evaluation alone.
        kept_by_principle: the same, by the principle's id.
        metric: the recipe's own held-out metric.
        metric_by_principle: the same, by the principle's id.
        mean_tokens: of its answers to the evaluation prompts.
        collapse: as `CollapseRow.as_dict`, with the anchors' own beside it as "anchors"; None
            without anchors.
    """

    round: int
    attempt: int = 0
    judge: Literal["teacher", "student"] = "teacher"
    judge_accuracy: Figure | None = None
    student_accuracy: Figure | None = None
    student_passes: bool | None = None
    labels: Mapping[str, Any] | None = None
    scores: tuple[int, ...] = ()
    win_rate: Figure | None = None
    length_controlled: float | None = None
    kept: Figure | None = None
    kept_by_principle: Mapping[str, float] = field(default_factory=dict)
    metric: Figure | None = None
    metric_by_principle: Mapping[str, float] = field(default_factory=dict)
    mean_tokens: float | None = None
    collapse: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figures:
        """The figures that `as_dict` gave."""
        given = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        for name in ("judge_accuracy", "student_accuracy", "win_rate", "kept", "metric"):
            if given.get(name) is not None:
                given[name] = Figure(**given[name])
        return cls(**given | {"scores": tuple(given.get("scores", ()))})

    def collapsed(self, measure: str) -> float | None:
        """One measure of the collapse watch; None where it could not be taken."""
        reading = (self.collapse or {}).get(measure) or {}
        value = reading.get("value")
        return None if value is None else float(value)
