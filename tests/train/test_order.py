"""The rows of a training come in an order that only its seed and the epoch decide."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif.train.plan import Stage
from rlaif.train.run import train
from tests.train.tiny_run import QUICK, ROOT, TinyRun

Make = Callable[..., TinyRun]

TWO_EPOCHS = {**QUICK, "max_steps": 12, "save_steps": 2, "lr_scheduler_type": "linear"}
"""Six steps an epoch of the 24 rows."""


def go_back_to_step_8(run: TinyRun, stage: Stage) -> None:
    """Leave the run as if it had died in the second epoch."""
    (run.folder / "manifests" / "models" / f"{stage}.json").unlink()
    for step in (10, 12):
        shutil.rmtree(run.folder / "models" / stage / f"checkpoint-{step}")


@pytest.mark.parametrize("order", ["random", "group_by_length"])
@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
def test_a_later_epoch_is_gone_on_with_in_the_same_order(
    tiny_run: Make, stage: Stage, order: str
) -> None:
    run = tiny_run(**{stage: {**TWO_EPOCHS, "train_sampling_strategy": order}})
    train(stage, run.recipe)
    before = run.weights(stage)
    go_back_to_step_8(run, stage)
    train(stage, run.recipe)
    assert run.log("train")[-1]["resumed_from"] == "checkpoint-8"
    assert run.weights(stage) == before


@pytest.mark.parametrize("order", ["random", "group_by_length"])
def test_two_processes_go_on_in_the_same_order(tmp_path: Path, order: str) -> None:
    block = {**TWO_EPOCHS, "per_device_train_batch_size": 2, "train_sampling_strategy": order}
    run = TinyRun(tmp_path, dpo=block)
    config = str(ROOT / "recipes" / "accelerate" / "two-cpu.yaml")
    launcher = ("accelerate.commands.launch", "--config_file", config)
    done = run.launch("dpo", *launcher)
    assert done.returncode == 0, done.stderr[-4000:]
    before = run.weights("dpo")
    losses = [line.get("loss") for line in run.history("dpo")]
    go_back_to_step_8(run, "dpo")
    done = run.launch("dpo", *launcher)
    assert done.returncode == 0, done.stderr[-4000:]
    assert run.log("train")[-1]["resumed_from"] == "checkpoint-8"
    assert [line.get("loss") for line in run.history("dpo")] == losses
    assert run.weights("dpo") == before
