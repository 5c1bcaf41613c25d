from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from rlaif.train.checkpoints import checkpoint_fault, file_fault, newest_whole, weights_fault
from rlaif.train.run import train
from tests.train.tiny_run import QUICK, TinyRun


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage folder that the Trainer itself has written: checkpoints 2, 4 and 6."""
    block = {**QUICK, "max_steps": 6, "save_steps": 2}
    run = TinyRun(tmp_path_factory.mktemp("run"), sft=block)
    return train("sft", run.recipe).parent


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "sft"))


def cut(file: Path, by: int = 3) -> None:
    os.truncate(file, file.stat().st_size - by)


def nothing(name: str, why: str) -> None:
    raise AssertionError(f"{name}: {why}")


def test_what_the_trainer_writes_is_whole(folder: Path) -> None:
    assert checkpoint_fault(folder / "checkpoint-2", 1) is None
    assert weights_fault(folder / "final") is None


def test_the_newest_is_the_one_of_the_most_steps(folder: Path) -> None:
    (folder / "checkpoint-4").rename(folder / "checkpoint-10")
    assert newest_whole(folder, 1, nothing) == folder / "checkpoint-10"


@pytest.mark.parametrize(
    "name",
    ["trainer_state.json", "rng_state.pth", "scheduler.pt", "optimizer.pt", "model.safetensors"],
)
@pytest.mark.parametrize("harm", [Path.unlink, cut, lambda f: cut(f, f.stat().st_size)])
def test_a_checkpoint_without_all_of_a_file_is_set_aside(
    folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(folder / "checkpoint-6" / name)
    told = []
    chosen = newest_whole(folder, 1, lambda checkpoint, why: told.append((checkpoint, why)))
    assert chosen == folder / "checkpoint-4"
    assert [checkpoint for checkpoint, _ in told] == ["checkpoint-6"]
    assert name in told[0][1]
    assert (folder / "incomplete" / "checkpoint-6").is_dir()


def test_nothing_set_aside_is_counted_by_the_trainer_when_it_deletes_the_oldest(
    folder: Path,
) -> None:
    from transformers.trainer_utils import rotate_checkpoints

    cut(folder / "checkpoint-6" / "optimizer.pt")
    newest_whole(folder, 1, lambda *_: None)
    rotate_checkpoints(str(folder), save_total_limit=1)
    assert (folder / "checkpoint-4").is_dir()


def test_without_a_whole_checkpoint_training_begins(folder: Path) -> None:
    for step in (2, 4, 6):
        (folder / f"checkpoint-{step}" / "optimizer.pt").unlink()
    assert newest_whole(folder, 1, lambda *_: None) is None


def test_each_of_two_processes_needs_its_random_state(folder: Path) -> None:
    checkpoint = folder / "checkpoint-6"
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    assert checkpoint_fault(checkpoint, 2) == "rng_state_1.pth is missing"
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    assert checkpoint_fault(checkpoint, 2) is None


def test_each_shard_of_an_index_has_to_be_there(folder: Path) -> None:
    checkpoint = folder / "checkpoint-6"
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    assert checkpoint_fault(checkpoint, 1) == "model-00002-of-00002.safetensors is missing"
    save_file({"b": torch.zeros(2)}, checkpoint / "model-00002-of-00002.safetensors")
    assert checkpoint_fault(checkpoint, 1) is None
    cut(index)
    assert checkpoint_fault(checkpoint, 1) == f"{index.name}: not JSON, or cut short"


def test_an_adapter_needs_its_settings(folder: Path) -> None:
    checkpoint = folder / "checkpoint-6"
    (checkpoint / "model.safetensors").rename(checkpoint / "adapter_model.safetensors")
    assert checkpoint_fault(checkpoint, 1) == "adapter_config.json is missing"
    (checkpoint / "adapter_config.json").write_text("{}")
    assert checkpoint_fault(checkpoint, 1) is None


@pytest.fixture
def deepspeed(folder: Path) -> Path:
    """As DeepSpeed's ZeRO-2 writes it with two processes."""
    checkpoint = folder / "checkpoint-6"
    state = (checkpoint / "optimizer.pt").read_bytes()
    (checkpoint / "optimizer.pt").unlink()
    (checkpoint / "global_step6").mkdir()
    (checkpoint / "latest").write_text("global_step6")
    names = ["mp_rank_00_model_states.pt"]
    names += [f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)]
    for name in names:
        (checkpoint / "global_step6" / name).write_bytes(state)
    for rank in (0, 1):
        shutil.copy(checkpoint / "rng_state.pth", checkpoint / f"rng_state_{rank}.pth")
    return checkpoint


def test_a_checkpoint_of_deepspeed_is_whole(deepspeed: Path) -> None:
    assert checkpoint_fault(deepspeed, 2) is None


@pytest.mark.parametrize(
    "name",
    [
        "latest",
        "global_step6/mp_rank_00_model_states.pt",
        "global_step6/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    ],
)
def test_deepspeed_needs_its_own_files(deepspeed: Path, name: str) -> None:
    (deepspeed / name).unlink()
    assert checkpoint_fault(deepspeed, 2) is not None


def test_a_rank_whose_part_was_cut_short_is_found(deepspeed: Path) -> None:
    cut(deepspeed / "global_step6" / "zero_pp_rank_1_mp_rank_00_optim_states.pt")
    fault = checkpoint_fault(deepspeed, 2)
    assert fault is not None
    assert "zero_pp_rank_1" in fault


WEIGHTS = save(
    {"a": torch.arange(6.0), "b": torch.ones(3, 5, dtype=torch.bfloat16)}, {"format": "pt"}
)


@settings(deadline=None)
@given(length=st.integers(0, len(WEIGHTS) - 1))
def test_no_beginning_of_a_safetensors_file_is_whole(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "cut.safetensors"
    file.write_bytes(WEIGHTS[:length])
    assert file_fault(file) is not None


def test_a_safetensors_file_is_whole(tmp_path: Path) -> None:
    for name, tensors in (("one", {"a": torch.ones(2)}), ("none", {})):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        assert file_fault(tmp_path / f"{name}.safetensors") is None


@pytest.mark.parametrize("header", [b"[]", b'{"a": 1}', b'{"a": {"data_offsets": [0]}}', b"\xff"])
def test_a_damaged_header_is_a_fault_and_no_crash(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    assert file_fault(file) == "its header is damaged"
