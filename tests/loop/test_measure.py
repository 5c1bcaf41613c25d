"""A round's figures are of what was asked this time, over loops of scripted models."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from rlaif.constitution import Constitution, Principle
from tests.loop.scripted_loop import YES_SAYER, ScriptedLoop

POINTWISE = {
    "prompts": {"path": "held-out.jsonl"}, "max_tokens": 10, "bootstrap": 20, "mode": "pointwise",
}  # fmt: skip
PASSED = {
    "min_accuracy": 0.0, "max_calibration_error": 1.0, "max_flip_rate": 1.0, "max_undecided": 1.0,
    "calibrate": None,
}  # fmt: skip
"""Of a gate that any judge passes."""


def other_principles(loop: ScriptedLoop) -> None:
    rules = (Principle(id="kind", text="Be polite."), Principle(id="long", text="Be wordy."))
    Constitution(name="test", principles=rules).save(loop.root / "constitution.yaml")


def other_templates(loop: ScriptedLoop) -> None:
    (loop.root / "templates").mkdir()
    text = files("rlaif").joinpath("templates/pointwise.txt").read_text("utf-8")
    (loop.root / "templates" / "pointwise.txt").write_text(text.replace("Is it", "So, is it"))
    loop.save(evaluate=POINTWISE, judge={"templates": "templates"})


def other_teacher(loop: ScriptedLoop) -> None:
    (loop.root / "teacher" / "model.safetensors").write_bytes(YES_SAYER.encode())


def other_form(loop: ScriptedLoop) -> None:
    loop.save(evaluate=POINTWISE, judge={"mode": "pairwise"})


@pytest.mark.parametrize("edit", [other_principles, other_templates, other_teacher, other_form])
def test_a_loop_that_is_done_again_with_an_edit_is_measured_as_one_that_began_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Callable[[ScriptedLoop], None]
) -> None:
    again = ScriptedLoop(tmp_path / "again", monkeypatch, evaluate=POINTWISE)
    before = again.loop()
    edit(again)
    found = again.loop("0/sample")
    fresh = ScriptedLoop(tmp_path / "fresh", monkeypatch, evaluate=POINTWISE)
    edit(fresh)
    wanted = fresh.loop()
    assert wanted != before and all(one.kept is not None for one in wanted.rounds)
    for one, other in zip(found.rounds, wanted.rounds, strict=True):
        assert sum(one.scores) == (one.labels or {})["verdicts"], "each counts once"
        assert (one.scores, one.kept, one.kept_by_principle) == (
            other.scores, other.kept, other.kept_by_principle,
        )  # fmt: skip
    assert found == wanted and found.status == "finished"


def test_a_gate_that_is_taken_out_leaves_no_accuracy_of_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = ScriptedLoop(tmp_path, monkeypatch)
    rows = [
        {"prompt": f"q {i}", "responses": [f"one {i}", f"two {i}"], "better": i % 2}
        for i in range(20)
    ]
    (tmp_path / "gate.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loop.save(gate={"data": "gate.jsonl", **PASSED})
    assert loop.loop().rounds[0].judge_accuracy is not None
    loop.save()
    assert loop.loop("0/sample").rounds[0].judge_accuracy is None
