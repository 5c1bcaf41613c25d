"""Which checkpoint a killed training goes on from: the newest that is whole, and no other.

RUN/models/<stage>/checkpoint-N → newest_whole → Trainer.train(resume_from_checkpoint=…)

The Trainer itself takes what is there: without the optimizer's state it goes on, silently, to
other weights; a truncated file stops it. Here every file must be whole by its own format, and
everything that each process needs must be there.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from rlaif.run_folder import os_errors

INCOMPLETE = "incomplete"
"""Folder of the checkpoints set aside. Beside the others, under a name that the Trainer counts as
a checkpoint, they could outlive a whole one when it deletes the oldest."""

_NAME = re.compile(r"checkpoint-(\d+)")
_ZIPS = {".pt", ".pth", ".bin"}
_OPTIMIZERS = {"optimizer.pt", "optimizer.bin"}
_WEIGHTS = {"model.safetensors", "adapter_model.safetensors", "pytorch_model_fsdp.bin"}
_INDEX = "model.safetensors.index.json"


def newest_whole(folder: Path, world_size: int, tell: Callable[[str, str], None]) -> Path | None:
    """The newest checkpoint that `world_size` processes can go on from; None where there is none.

    A checkpoint that is not whole is moved to ``incomplete/checkpoint-N``, and `tell` is called
    with its name and what is wrong with it.

    Raises:
        JournalError: a folder cannot be read or moved.
    """
    with os_errors(folder, "read"):
        found = {int(m[1]): p for p in folder.glob("*") if (m := _NAME.fullmatch(p.name))}
    for _, checkpoint in sorted(found.items(), reverse=True):
        fault = checkpoint_fault(checkpoint, world_size)
        if fault is None:
            return checkpoint
        aside = folder / INCOMPLETE / checkpoint.name
        with os_errors(checkpoint, "written"):
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.rename(aside)
        tell(checkpoint.name, fault)
    return None


def checkpoint_fault(checkpoint: Path, world_size: int) -> str | None:
    """Why `world_size` processes cannot go on from a checkpoint; None where they can.

    Raises:
        JournalError: a file cannot be read.
    """
    with os_errors(checkpoint, "read"):
        files = {str(p.relative_to(checkpoint)): p for p in checkpoint.rglob("*") if p.is_file()}
        needed = ["trainer_state.json", *_rng_states(world_size)]
        if "latest" in files or any(name.startswith("global_step") for name in files):
            needed += _deepspeed_files(checkpoint, set(files), world_size)
        else:
            needed += ["scheduler.pt", *([] if _OPTIMIZERS & set(files) else ["optimizer.pt"])]
            needed += _weight_files(checkpoint, set(files))
    return _first_fault(files, needed)


def weights_fault(folder: Path) -> str | None:
    """Why a saved model is not whole; None where it is.

    Raises:
        JournalError: a file cannot be read.
    """
    with os_errors(folder, "read"):
        files = {p.name: p for p in folder.glob("*") if p.is_file()}
        return _first_fault(files, _weight_files(folder, set(files)))


def _first_fault(files: dict[str, Path], needed: list[str]) -> str | None:
    for name in needed:
        if name not in files:
            return f"{name} is missing"
    return next(
        (f"{n}: {fault}" for n, p in sorted(files.items()) if (fault := file_fault(p))), None
    )


def _rng_states(world_size: int) -> list[str]:
    if world_size == 1:
        return ["rng_state.pth"]
    return [f"rng_state_{rank}.pth" for rank in range(world_size)]


def _weight_files(folder: Path, files: set[str]) -> list[str]:
    """The files that the weights are in, whether or not they are there."""
    if _INDEX in files:
        try:
            shards = set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return [_INDEX]  # which is there, but will be found broken
        return sorted(shards)
    adapter = ["adapter_config.json"] if "adapter_model.safetensors" in files else []
    return [*adapter, *([] if _WEIGHTS & files else ["model.safetensors"])]


def _deepspeed_files(checkpoint: Path, files: set[str], world_size: int) -> list[str]:
    """DeepSpeed's own: the step that `latest` names, and each rank's part of the optimizer."""
    if "latest" not in files:
        return ["latest"]
    step = (checkpoint / "latest").read_text(errors="replace").strip()
    optimizers = [n for n in files if n.startswith(f"{step}/") and n.endswith("optim_states.pt")]
    models = [n for n in files if n.startswith(f"{step}/") and n.endswith("model_states.pt")]
    needed = [] if models else [f"{step}/*model_states.pt"]
    if len(optimizers) != world_size:
        needed += [f"{step}/*optim_states.pt of {world_size - len(optimizers)} ranks"]
    return needed


def file_fault(file: Path) -> str | None:
    """Why a file is not whole by its own format; None where it is, or its format does not tell.

    Raises:
        JournalError: it cannot be read.
    """
    with os_errors(file, "read"):
        if file.suffix == ".safetensors":
            return _safetensors_fault(file)
        # A zip's directory is written last: a file cut short has none.
        if file.suffix in _ZIPS and not zipfile.is_zipfile(file):
            return "cut short"
        if file.suffix == ".json":
            return _json_fault(file.read_bytes())
    return None


def _json_fault(text: bytes) -> str | None:
    try:
        json.loads(text)
    except ValueError:
        return "not JSON, or cut short"
    return None


def _safetensors_fault(file: Path) -> str | None:
    """A file is: the header's length (8 bytes), the header (JSON), and the tensors it tells of."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 8 < 8 + length <= size:
            return "cut short"
        try:
            header = json.loads(stream.read(length))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            end = max((entry["data_offsets"][1] for entry in tensors), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "its header is damaged"
    wanted = 8 + length + end
    return None if size == wanted else f"{size} bytes instead of {wanted}"
