from __future__ import annotations

import json

from rlaif.loop.figures import Figure, Figures

FULL = Figures(
    round=2, attempt=1, judge="student", judge_accuracy=Figure(0.9, 0.8, 0.95),
    student_accuracy=Figure(0.7), student_passes=True,
    labels={"pairs": 3, "dropped": {"pairs": {"tie": 1}}},
    scores=(1, 2, 3), win_rate=Figure(0.6, 0.5, 0.7), length_controlled=0.55, kept=Figure(0.8),
    kept_by_principle={"kind": 0.9}, metric=Figure(0.4, None, 0.5),
    metric_by_principle={"kind": 0.3}, mean_tokens=12.5,
    collapse={"drift": {"value": 0.25}, "tail_coverage": {"value": None}},
)  # fmt: skip


def test_figures_come_back_from_json_as_they_were() -> None:
    for figures in (FULL, Figures(round=-1)):
        assert Figures.from_dict(json.loads(json.dumps(figures.as_dict()))) == figures


def test_figures_of_another_version_are_read_by_what_is_known() -> None:
    assert Figures.from_dict({"round": 3, "a later figure": 1.0}) == Figures(round=3)


def test_a_collapse_measure_that_could_not_be_taken_is_none() -> None:
    assert FULL.collapsed("drift") == 0.25
    assert FULL.collapsed("tail_coverage") is None
    assert FULL.collapsed("distinct") is None
    assert Figures(round=0).collapsed("drift") is None
