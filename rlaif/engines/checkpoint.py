"""What a model is, and how it is loaded: its configuration, tokenizer, weights, and their hashes.

The engine reads configuration and tokenizer at once and the weights at the first use of them, so
that a finished stage can be recognised without loading a model.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rlaif.errors import EngineError

_MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "*.py",
)
_ADAPTER_FILES = ("adapter_config.json", "*.safetensors")
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def load_config(model: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The model's configuration.

    Raises:
        EngineError: no such model, or it cannot be reached.
    """
    if _looks_like_path(model) and not Path(model).expanduser().is_dir():
        raise EngineError("no such model folder", value=model, mend="check the path")
    return _load(AutoConfig, model, revision, trust_remote_code)


def load_tokenizer(model: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The model's tokenizer; raises as `load_config` does."""
    return _load(AutoTokenizer, model, revision, trust_remote_code)


def load_weights(
    model: str,
    revision: str | None,
    trust_remote_code: bool,
    *,
    adapter: str | None,
    dtype: torch.dtype,
    device: str,
    arguments: Mapping[str, Any],
) -> Any:
    """The model in eval mode on its device, from safetensors alone, an adapter merged into it.

    Raises:
        EngineError: as `load_config`, or no safetensors, or arguments that the model refuses.
    """
    loaded = _load(
        AutoModelForCausalLM,
        model,
        revision,
        trust_remote_code,
        dtype=dtype,
        use_safetensors=True,
        **arguments,
    )
    if "device_map" not in arguments:
        loaded = loaded.to(device)
    if adapter is not None:
        loaded = _with_adapter(loaded, adapter)
    return loaded.eval()


def best_device() -> str:
    """CUDA where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(wanted: str, config: Any, device: str) -> torch.dtype:
    """The dtype to compute in; "auto" is what is fast and safe on the device.

    On a GPU that is bfloat16, or float16 if the checkpoint is float16; on a CPU bfloat16 where
    the processor multiplies it in hardware, else float32.

    Raises:
        EngineError: a dtype that is none of auto, bfloat16, float16, float32.
    """
    if wanted in _DTYPES:
        return _DTYPES[wanted]
    if wanted != "auto":
        raise EngineError("no such dtype", value=wanted, mend=f"use auto, {', '.join(_DTYPES)}")
    if device.startswith("cpu"):
        return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32
    kept = getattr(config, "dtype", None)
    return torch.float16 if kept is torch.float16 else torch.bfloat16


def model_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of what makes a model: weights, config, tokenizer."""
    return _hash(folder, _MODEL_FILES)


def identity(
    model: str, revision: str | None, config: Any, dtype: torch.dtype, adapter: str | None
) -> dict[str, str]:
    """What decides a model's output, for an `Engine.identity`; a local one counts by what is in it.

    Args:
        model: a folder, or a name on the hub.
        revision: as asked for; the commit that it stands for, where `config` tells it.
        config: the model's.
        dtype: what it computes in.
        adapter: a folder with a peft adapter.
    """
    folder = Path(model).expanduser()
    local = folder.is_dir()
    commit = getattr(config, "_commit_hash", None)
    return {
        "model": model_hash(folder) if local else model,
        "revision": "" if local else str(commit or revision or ""),
        "dtype": str(dtype).removeprefix("torch."),
        "adapter": "" if adapter is None else adapter_hash(Path(adapter)),
        **versions(),
    }


def weight_bytes(folder: Path) -> int:
    """The size of a local model's weights; 0 for a name on the hub, which is not known yet."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def adapter_hash(folder: Path) -> str:
    """SHA-256 over an adapter's configuration and weights."""
    return _hash(folder, _ADAPTER_FILES)


def check_adapter(adapter: str) -> None:
    """Refuse what is no folder with an adapter in safetensors, before anything is loaded.

    Raises:
        EngineError: it is not.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (Path(adapter) / name).is_file():
            raise EngineError(f"the adapter has no {name}", key="adapter", value=adapter)


def _load(kind: Any, model: str, revision: str | None, trust_remote_code: bool, **more: Any) -> Any:
    try:
        return kind.from_pretrained(
            model, revision=revision, trust_remote_code=trust_remote_code, **more
        )
    except torch.OutOfMemoryError:
        raise
    # Whatever a library finds wrong with a folder (OSError, ValueError, a JSON error, …) is one
    # line for the user; the cause stays attached.
    except Exception as error:
        first = " ".join(str(error).split()).split(". ")[0]
        raise EngineError(
            f"cannot load {model}: {first}",
            mend="name a folder with config.json, tokenizer and safetensors, or a model that is "
            "on the Hugging Face hub or in its cache",
        ) from error


def _with_adapter(model: Any, adapter: str) -> Any:
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    tuned = PeftModel.from_pretrained(model, adapter)
    layers = [name for name, layer in tuned.named_modules() if isinstance(layer, BaseTunerLayer)]
    # Merging into an embedding that is tied to the head changes the head too, wrongly.
    if any("embed" in name or "lm_head" in name for name in layers):
        return tuned.base_model.model
    return tuned.merge_and_unload()


def _hash(folder: Path, patterns: Sequence[str]) -> str:
    whole = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        if path.is_file():
            with path.open("rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.name} {part}\n".encode())
    return whole.hexdigest()


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "~", os.sep)) or model.count("/") > 1


def _cpu_multiplies_bfloat16() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def versions() -> dict[str, str]:
    """The libraries that compute, and their versions."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def changes_as_it_reads(config: Any) -> bool:
    """Whether a forward pass changes the model, so that no two may run at once.

    A rotary embedding that adapts to the length of its input ("dynamic", "longrope") writes the
    frequencies that it took into the model: a pass beside it would be read at wrong positions.
    """
    given = getattr(config.get_text_config(), "rope_parameters", None) or {}
    by_layer_type = [part for part in given.values() if isinstance(part, dict)]
    types = [str(part.get("rope_type")) for part in (given, *by_layer_type)]
    return any("dynamic" in name or name == "longrope" for name in types)
