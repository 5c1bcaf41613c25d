"""The launch files do what they say, as told by the processes that trained.

Those that a CPU can run are launched for real. The others say that they need GPUs, and load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from tests.train.tiny_run import QUICK, ROOT, TinyRun

FILES = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
BLOCK = {**QUICK, "per_device_train_batch_size": 2}

RUN_HERE = {
    "one": (1, "NO"),
    "two-cpu": (2, "MULTI_CPU"),
    "zero2": (2, "DEEPSPEED ZeRO-2"),
    "zero3": (2, "DEEPSPEED ZeRO-3"),
}
"""World size and type that rank 0 has to have seen."""


def head(path: Path) -> str:
    lines = path.read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_launch_file_loads_and_says_what_it_needs_and_what_is_proven(path: Path) -> None:
    load_config_from_file(str(path))
    assert "# needs: " in head(path)
    assert "# proven: " in head(path)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_launch_file_that_is_not_launched_here_says_so(path: Path) -> None:
    says_gpus = "# needs: GPUs" in head(path) and "it has not been run" in head(path)
    assert says_gpus == (path.stem not in RUN_HERE)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_launches_do_not_meet_at_one_port(path: Path) -> None:
    made = yaml.safe_load(path.read_text())
    assert made["num_processes"] == 1 or made["main_process_port"] == 0


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_recipe_decides_the_precision(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["mixed_precision"] == "no"


def launched(tmp_path: Path, name: str) -> tuple[TinyRun, list[dict[str, Any]]]:
    """A DPO run launched with a file, and the losses that it logged."""
    run = TinyRun(tmp_path, dpo=BLOCK)
    config = ROOT / "recipes" / "accelerate" / f"{name}.yaml"
    done = run.launch("dpo", "accelerate.commands.launch", "--config_file", str(config))
    assert done.returncode == 0, done.stderr[-4000:]
    return run, [line for line in run.history("dpo") if "loss" in line]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The losses of one process with batches as large as those of two processes together."""
    from rlaif.train.run import train

    run = TinyRun(tmp_path_factory.mktemp("alone"), dpo={**BLOCK, "per_device_train_batch_size": 4})
    train("dpo", run.recipe)
    return [line for line in run.history("dpo") if "loss" in line]


@pytest.mark.parametrize("name", RUN_HERE)
def test_a_launch_trains_with_as_many_processes_as_its_file_says(
    tmp_path: Path, name: str, alone: list[dict[str, Any]]
) -> None:
    run, losses = launched(tmp_path, name)
    world, kind = RUN_HERE[name]
    config = yaml.safe_load((ROOT / "recipes" / "accelerate" / f"{name}.yaml").read_text())
    told = run.log("train")
    assert len(told) == 1  # one process tells
    assert (told[0]["world_size"], told[0]["distributed_type"]) == (world, kind)
    assert world == config["num_processes"]
    assert run.manifest("dpo")["launch"]["world_size"] == world
    # The policy starts as its reference, on every rank.
    assert losses[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    if world == 2:
        for mine, other in zip(losses, alone, strict=True):
            for metric in ("loss", "rewards/margins", "logps/chosen", "grad_norm"):
                assert mine[metric] == pytest.approx(other[metric], rel=1e-3, abs=1e-5), metric


def test_a_launch_that_would_silently_be_one_process_is_refused(tmp_path: Path) -> None:
    run = TinyRun(tmp_path, dpo=BLOCK)
    config = tmp_path / "multi-cpu.yaml"
    config.write_text(
        "distributed_type: MULTI_CPU\nuse_cpu: true\nnum_processes: 2\nnum_machines: 1\n"
    )
    done = run.launch("dpo", "accelerate.commands.launch", "--config_file", str(config))
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("rlaif.train: ")]
    assert told and "two-cpu.yaml" in told[0]
    assert not (run.folder / "models").exists()
