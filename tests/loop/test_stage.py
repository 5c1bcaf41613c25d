"""A stage's exit status, by which the loop knows how it ended: in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from rlaif.errors import BudgetError, DataError, GateError, RlaifError
from rlaif.loop import stage
from rlaif.loop.places import LoopFolder
from rlaif.loop.spending import Books, devices, read_cost, total
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
from rlaif.engines.meter import metered
from rlaif.engines.protocol import Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import EngineError
from rlaif.loop import stage
from rlaif.records import Message
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


ENGINE = """
def sample(recipe, progress):
    engine = metered(ScriptedEngine(lambda _: "a b c"))
    engine.generate([(Message("user", "x"),)], Sampling(), [0])
    try:
        print("at work", flush=True)
        time.sleep(600)
    finally:
        HANGS and (print("told", flush=True), time.sleep(600))
pipeline.sample = sample
"""
TRAINING = """
pipeline.train_command = lambda *_: ["bash", "-c", "trap '' TERM; echo at work; sleep 600 & wait"]
"""


@contextmanager
def at_work(folder: LoopFolder, name: str, code: str) -> Iterator[subprocess.Popen[str]]:
    """A stage that is in the middle of its work, and was told to end there."""
    whole = IMPORTS + code + "sys.exit(stage.main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", whole, name, str(folder.root)], env=environment(),
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
        process.terminate()
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_stage_that_is_told_to_end_writes_down_what_it_has_spent(folder: LoopFolder) -> None:
    """No shard of it is finished."""
    with at_work(folder, "sample", f"HANGS = False{ENGINE}") as process:
        assert process.wait(60) == 128 + signal.SIGTERM
    assert total(read_cost(folder.cost)).generated_tokens == 3


def test_a_stage_that_hangs_ends_when_it_is_told_to_twice(folder: LoopFolder) -> None:
    with at_work(folder, "sample", f"HANGS = True{ENGINE}") as process:
        assert process.stdout is not None and process.stdout.readline() == "told\n"
        end = time.monotonic() + 60
        while not read_cost(folder.cost):
            assert time.monotonic() < end, "what it has spent is not written down"
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    assert total(read_cost(folder.cost)).generated_tokens == 3


def test_a_stage_that_is_told_to_end_while_it_writes_the_last_line_writes_it(
    folder: LoopFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Books.line

    def told_meanwhile(books: Books) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        line(books)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Books, "line", told_meanwhile)
    monkeypatch.setitem(stage._STAGES, "sample", lambda job: None)  # type: ignore[attr-defined]
    assert stage.main(["sample", str(folder.root)]) == 0
    assert len(read_cost(folder.cost)) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stage_that_is_told_to_end_does_not_wait_for_its_training(folder: LoopFolder) -> None:
    with at_work(folder, "sft", TRAINING) as process:
        assert process.wait(60) == 128 + signal.SIGTERM
    assert total(read_cost(folder.cost)).seconds > 0


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
