from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif.errors import TrainError
from rlaif.train.arguments import config
from rlaif.train.launch import Launch
from tests.train.tiny_run import TinyRun

CPU_LAUNCHER = {"ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no"}
"""What `accelerate launch` leaves in the environment of a process that it starts alone."""


@pytest.fixture
def made(tiny_run: Callable[..., TinyRun]) -> Any:
    return config(tiny_run(sft={}).plan("sft"))


@pytest.mark.parametrize("environ", [{}, CPU_LAUNCHER, CPU_LAUNCHER | {"MASTER_ADDR": "node-7"}])
def test_one_process_may_be_what_was_asked_for(made: Any, environ: dict[str, str]) -> None:
    assert Launch.of(made, environ).world_size == 1


def test_several_processes_asked_for_and_one_started_is_refused(made: Any) -> None:
    met_at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    with pytest.raises(TrainError, match=r"two-cpu\.yaml"):
        Launch.of(made, CPU_LAUNCHER | met_at)


def test_two_processes_that_train_each_for_itself_are_refused(made: Any) -> None:
    with pytest.raises(TrainError, match="2 processes were launched"):
        Launch.of(made, {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"})


def test_several_gpus_and_one_process_are_refused(made: Any) -> None:
    with pytest.raises(TrainError, match=r"ddp\.yaml"):
        Launch.of(SimpleNamespace(**vars(made), n_gpu=2), {})  # type: ignore[arg-type]


def test_fsdp_on_a_cpu_is_refused(made: Any) -> None:
    with pytest.raises(TrainError, match="FSDP needs GPUs"):
        Launch.of(made, {"ACCELERATE_USE_FSDP": "true"})


@pytest.mark.parametrize(
    ("zero", "precompute", "refused"), [(3, True, True), (3, False, False), (2, True, False)]
)
def test_precomputed_references_under_zero_3_are_refused(
    tiny_run: Callable[..., TinyRun], zero: int, precompute: bool, refused: bool
) -> None:
    made = config(tiny_run(dpo={"precompute_ref_log_probs": precompute}).plan("dpo"))
    made.deepspeed_plugin = SimpleNamespace(zero_stage=zero)
    if not refused:
        assert Launch.of(made, {}).distributed_type == f"DEEPSPEED ZeRO-{zero}"
        return
    with pytest.raises(TrainError, match="precompute_ref_log_probs") as error:
        Launch.of(made, {})
    assert "zero2.yaml" in str(error.value) and "\n" not in str(error.value)


def test_the_launcher_s_precision_is_told_where_the_recipe_asks_for_none(made: Any) -> None:
    assert Launch.of(made, {"ACCELERATE_MIXED_PRECISION": "bf16"}).mixed_precision == "bf16"
