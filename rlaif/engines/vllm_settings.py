"""What vLLM is given where a recipe says nothing, and what it says of that, in one line.

Called by vllm.py; imports no vLLM.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rlaif.engines import checkpoint
from rlaif.errors import EngineError

_CPU_CACHE_BYTES = 2**31
_CPU_BLOCK = 32
"""Tokens in a block of the cache: what a prefix is rounded down to. On a CPU vLLM takes 128, which
shares less, and says that it is slow with what is no multiple of 32."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks of LoRA that vLLM makes room for."""
_PARALLEL = {"tensor_parallel_size", "pipeline_parallel_size", "distributed_executor_backend"}
_MEMORY = {"kv_cache_memory_bytes", "gpu_memory_utilization"}
_SAVES_MEMORY = ("max_model_len", "max_num_seqs", "max_num_batched_tokens")
RESUME = "what is finished is kept: start again to go on"
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|no available memory", re.I)


def arguments(
    given: Mapping[str, Any], config: Any, dtype: torch.dtype, on: str, adapter: str | None
) -> dict[str, Any]:
    """What `vllm.LLM` is given beside the model: the caller's arguments, and ours under them.

    Args:
        given: the caller's.
        config: the model's.
        dtype: to compute in.
        on: the kind of device.
        adapter: a folder with a peft adapter.
    """
    ours: dict[str, Any] = {"enable_prefix_caching": True}
    if adapter is not None:
        ours |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(adapter)}
    if on == "cpu":
        ours |= _for_a_cpu(given, config, dtype)
    return ours | dict(given)


def _for_a_cpu(given: Mapping[str, Any], config: Any, dtype: torch.dtype) -> dict[str, Any]:
    keys = given.keys()
    ours: dict[str, Any] = {"block_size": _CPU_BLOCK}
    if not keys & _PARALLEL:
        ours["distributed_executor_backend"] = "uni"
    if "enable_chunked_prefill" not in keys:
        # A seeded request whose prompt is computed in parts ends there with a crash.
        ours["enable_chunked_prefill"] = False
    if not keys & _MEMORY and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        ours["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
        if (length := _cached_length(config, dtype)) is not None:
            ours["max_model_len"] = length
    return ours


def _cached_length(whole: Any, dtype: torch.dtype) -> int | None:
    """How long a sequence may be, where the model's own context does not fit into the cache."""
    config = whole.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    length = getattr(config, "max_position_embeddings", None)
    if not heads or not length:
        return None
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    heads = getattr(config, "num_key_value_heads", None) or heads
    a_token = 2 * config.num_hidden_layers * heads * width * dtype.itemsize
    room = _CPU_CACHE_BYTES // a_token // _CPU_BLOCK * _CPU_BLOCK
    return int(room) if room < length else None


def device() -> str:
    """The kind of device that vLLM will run on."""
    # Asked otherwise, the driver is started here, and vLLM's own processes, forked, have none.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    return checkpoint.best_device()


def version() -> str:
    """The version of vLLM that is installed."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""


def _rank(adapter: str) -> int:
    """The adapter's greatest rank, rounded up to one that vLLM makes room for."""
    config = json.loads((Path(adapter) / "adapter_config.json").read_text())
    rank = max([config.get("r") or 1, *(config.get("rank_pattern") or {}).values()])
    return next((r for r in _RANKS if r >= rank), rank)


def engine_error(what: str, name: str, error: Exception, mend: str | None = None) -> EngineError:
    """What vLLM says in many lines, in one."""
    said = str(error)
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", said):
        return EngineError("no such argument of vLLM", key=f"engine_args.{unknown[1]}")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(said):
        what, mend = f"out of memory: {what}", f"lower {', '.join(_SAVES_MEMORY)}; {RESUME}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = next((x for x in lines if x.startswith("Value error, ")), lines[0] if lines else "")
    told = told.removeprefix("Value error, ").split(" [type=")[0]
    return EngineError(f"{what} {name}: {told or type(error).__name__}", mend=mend)
