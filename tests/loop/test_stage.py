"""A stage's exit status, by which the loop knows how it ended: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rlaif.errors import BudgetError, DataError, GateError, RlaifError
from rlaif.loop import stage
from rlaif.loop.places import LoopFolder
from rlaif.loop.spending import devices, read_cost
from tests.train.tiny_run import environment


@pytest.fixture
def folder(tmp_path: Path) -> LoopFolder:
    """A loop's folder with a round that could begin."""
    (tmp_path / "constitution.yaml").write_text("name: t\nprinciples:\n- {id: a, text: b}\n")
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "x"}) + "\n")
    made = LoopFolder(tmp_path / "run")
    recipe = {
        "run": str(made.root), "constitution": str(tmp_path / "constitution.yaml"),
        "student": {"model": "student"}, "teacher": {"model": "teacher"},
        "prompts": {"path": str(tmp_path / "prompts.jsonl")}, "train": {"sft": {}, "dpo": {}},
    }  # fmt: skip
    made.run.write_text(made.run.recipe, yaml.safe_dump(recipe | {"loop": {}}))
    run = made.round(0)
    run.write_text(run.recipe, yaml.safe_dump(recipe | {"run": str(run.root)}))
    return made


def raising(error: BaseException) -> Callable[[stage.Job], None]:
    def body(job: stage.Job) -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, 0), (DataError("no rows"), stage.FAILED), (GateError("it is wrong"), stage.REFUSED),
     (BudgetError("it is spent"), stage.PAUSED)],
)  # fmt: skip
def test_how_a_stage_ended_is_in_its_status_and_its_last_line_says_why(
    folder: LoopFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: RlaifError | None, status: int,
) -> None:  # fmt: skip
    body = (lambda job: None) if error is None else raising(error)
    monkeypatch.setitem(stage._STAGES, "sample", body)  # type: ignore[attr-defined]
    assert stage.main(["sample", str(folder.root)]) == status
    said = capsys.readouterr().err
    assert said == ("" if error is None else f"rlaif: {error}\n")
    assert len(read_cost(folder.cost)) == 1, "what a stage that failed has spent is spent"


def test_the_statuses_are_told_apart_and_none_is_that_of_a_signal_or_a_traceback() -> None:
    statuses = {0, 1, stage.FAILED, stage.REFUSED, stage.PAUSED}
    assert len(statuses) == 5 and all(status < 128 for status in statuses)


def test_a_budget_that_is_spent_lets_no_stage_begin(
    folder: LoopFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = yaml.safe_load(folder.run.recipe.read_text()) | {"budget": {"tokens": 5}}
    folder.run.write_text(folder.run.recipe, yaml.safe_dump(recipe))
    folder.cost.write_text(json.dumps({"generated_tokens": 6}) + "\n")
    began: list[int] = []
    monkeypatch.setitem(stage._STAGES, "sample", lambda job: began.append(1))  # type: ignore[attr-defined]
    assert stage.main(["sample", str(folder.root)]) == stage.PAUSED
    assert began == []


IMPORTS = """
import subprocess, sys, time
from rlaif import lifeline, pipeline
from rlaif.errors import EngineError
from rlaif.loop import stage
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment(), capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip


def test_a_training_that_fails_fails_its_stage_with_the_trainer_s_own_words(
    folder: LoopFolder,
) -> None:
    """Through the real launcher: nothing is labelled, so there is nothing to train on."""
    done = run("-m", "rlaif.loop.stage", "sft", str(folder.root))
    assert done.returncode == stage.FAILED
    assert "rlaif.train: " in done.stderr and "no Parquet files to train on" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("sft ended with exit status 1")


def test_the_training_s_seconds_end_the_stage_before_the_budget_is_passed(
    folder: LoopFolder,
) -> None:
    recipe = yaml.safe_load(folder.run.recipe.read_text()) | {"budget": {"gpu_hours": 2 / 3600}}
    folder.run.write_text(folder.run.recipe, yaml.safe_dump(recipe))
    done = run("-m", "rlaif.loop.stage", "sft", str(folder.root))
    assert done.returncode == stage.PAUSED
    assert "budget.gpu_hours" in done.stderr.splitlines()[-1]


SLOW = """
kill = lifeline.kill_below
lifeline.kill_below = lambda pid: (kill(pid), time.sleep(2))
"""
"""Who has killed all is slow to go on, as it may be on a busy machine."""
ENDS = {
    "sft": """
pipeline.train_command = lambda *_: ["bash", "-c", "sleep 600 & wait"]
""",
    "sample": """
def sample(*_):
    subprocess.run(["bash", "-c", "sleep 600 & wait"])
    raise EngineError("the process of the student ended")
pipeline.sample = sample
""",
}
"""A launcher and an engine's worker, each with a child of its own, and what is made of its end."""


@pytest.mark.parametrize("name", ENDS)
def test_what_a_pause_kills_does_not_pass_for_a_stage_that_has_ended(
    folder: LoopFolder, name: str
) -> None:
    recipe = yaml.safe_load(folder.run.recipe.read_text())
    budget = {"budget": {"gpu_hours": 2 * devices() / 3600}}
    folder.run.write_text(folder.run.recipe, yaml.safe_dump(recipe | budget))
    code = IMPORTS + SLOW + ENDS[name] + "sys.exit(stage.main(sys.argv[1:]))"
    done = run("-c", code, name, str(folder.root))
    assert done.returncode == stage.PAUSED
    assert "budget.gpu_hours" in done.stderr.splitlines()[-1]
    assert read_cost(folder.cost), "what it has cost is written down"


@pytest.mark.parametrize(
    ("train", "told"),
    [({"dpo": {"betta": 0.1}}, "train.dpo.betta"),
     ({"dpo": {}, "lora": {"rank": 3}}, "train.lora.rank")],
)  # fmt: skip
def test_a_training_that_trl_or_peft_would_not_take_is_found_before_any_stage(
    folder: LoopFolder, train: dict[str, object], told: str
) -> None:
    recipe = yaml.safe_load(folder.run.recipe.read_text()) | {"train": train}
    folder.run.write_text(folder.run.recipe, yaml.safe_dump(recipe))
    done = run("-m", "rlaif.cli", "loop", str(folder.run.recipe))
    assert done.returncode == 2
    assert done.stderr.startswith("rlaif: ") and told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "started" not in done.stdout
