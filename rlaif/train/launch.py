"""How many processes this training really has, and work that only one of them does.

arguments → Launch → run

A launcher that was asked for two processes and started one, or two worlds of one, trains another
model than the one asked for, and says nothing. Here that is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from rlaif.errors import RlaifError, TrainError
from rlaif.train.arguments import Config

T = TypeVar("T")

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_TWO_CPU = "launch with --config_file recipes/accelerate/two-cpu.yaml, or with torchrun"


@dataclass(frozen=True)
class Launch:
    """What the training process itself sees of its launch.

    Attributes:
        world_size: the number of processes that train together.
        distributed_type: as `accelerate` calls it; with DeepSpeed also the ZeRO stage.
        device: "cpu", "cuda", …
        mixed_precision: "no", "bf16" or "fp16"; the launcher's, where the recipe asks for none.
    """

    world_size: int
    distributed_type: str
    device: str
    mixed_precision: str

    @classmethod
    def of(cls, config: Config, environ: Mapping[str, str]) -> Launch:
        """The launch of this process, whose process group `config` has started.

        Raises:
            TrainError: fewer processes train together than were launched; one process sees several
                GPUs; or DeepSpeed cannot train what the recipe asks for.
        """
        world = PartialState().num_processes
        _refuse_fewer(world, environ)
        if config.n_gpu > 1:
            raise TrainError(
                f"{config.n_gpu} GPUs and one process",
                mend="launch with --config_file recipes/accelerate/ddp.yaml, or set "
                "CUDA_VISIBLE_DEVICES=0",
            )
        asked = "bf16" if config.bf16 else "fp16" if config.fp16 else None
        precision = asked or environ.get("ACCELERATE_MIXED_PRECISION", "no")
        return cls(world, _distributed_type(config, environ), config.device.type, precision)


def _refuse_fewer(world: int, environ: Mapping[str, str]) -> None:
    launched = next((int(environ[k]) for k in _WORLD_SIZES if k in environ), None)
    if launched is not None and launched != world:
        raise TrainError(
            f"{launched} processes were launched, but each trains by itself",
            mend=_TWO_CPU if world == 1 else "launch as many as train together",
        )
    # `accelerate launch` with distributed_type MULTI_CPU and several processes: without MPI it
    # starts one. What is left of the wish is the address that the processes were to meet at.
    simple_launcher = "ACCELERATE_USE_CPU" in environ
    if simple_launcher and launched is None and environ.get("MASTER_ADDR") == "127.0.0.1":
        raise TrainError("several processes were asked for, but one was started", mend=_TWO_CPU)


def _distributed_type(config: Config, environ: Mapping[str, str]) -> str:
    if config.deepspeed_plugin is not None:
        stage = config.deepspeed_plugin.zero_stage
        if stage == 3 and getattr(config, "precompute_ref_log_probs", False):
            # It fails inside DeepSpeed (0.19.8), after the model is loaded.
            raise TrainError(
                "under ZeRO-3 no reference log-probabilities can be computed before training",
                key="train.dpo.precompute_ref_log_probs", value=True,
                mend="set it to false, or launch with recipes/accelerate/zero2.yaml",
            )  # fmt: skip
        return f"DEEPSPEED ZeRO-{stage}"
    state: str = config.distributed_state.distributed_type.value
    if environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return state
    if config.device.type == "cpu":
        # Data parallel instead, with weights loaded on rank 0 alone: `accelerate` hands them to
        # the others' policies, but not to their references.
        raise TrainError("FSDP needs GPUs", mend=_TWO_CPU)
    return "FSDP"


def on_rank_0(work: Callable[[], T]) -> T:
    """Do `work` on rank 0 while the others wait; all return its result, or raise its error."""
    state = PartialState()
    if state.num_processes == 1:
        return work()
    box: list[Any] = [None, None]
    if state.is_main_process:
        try:
            box[0] = work()
        except RlaifError as error:
            box[1] = error
    broadcast_object_list(box)
    if box[1] is not None:
        raise box[1]
    result: T = box[0]
    return result


def leave_group() -> None:
    """End the process group that `arguments.config` has started."""
    PartialState().destroy_process_group()
