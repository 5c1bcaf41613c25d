"""How a trained model gets to its place: wholly, or not at all.

trainer → final.partial → (LoRA: merged) → RUN/models/<stage>/final → manifest

The manifest is written last: a stage without one is not finished, whatever lies in its folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rlaif.errors import TrainError
from rlaif.records import fingerprint
from rlaif.run_folder import os_errors, sync_folder
from rlaif.train.arguments import Config
from rlaif.train.checkpoints import weights_fault
from rlaif.train.launch import on_rank_0
from rlaif.train.lora import load_base, merge
from rlaif.train.plan import Plan
from rlaif.train.start import sha256
from rlaif.train.trainers import Trainer

_WEIGHTS = ".safetensors"
_LIBRARIES = ("rlaif", "torch", "transformers", "trl", "peft", "accelerate", "datasets")


def save_final(plan: Plan, trainer: Trainer, start: str, facts: Mapping[str, Any]) -> None:
    """Save the trained model and put it in its place; every process takes part.

    Args:
        plan: what was trained.
        trainer: holds the trained weights.
        start: the model that training started from; with LoRA, the adapter's base.
        facts: for the manifest, beside the fingerprint, what it covers and the digests.

    Raises:
        TrainError: the launcher's settings do not let the whole weights be saved.
        JournalError: the disk is full, and so on.
    """
    saved = plan.adapter if plan.recipe.train.lora is not None else plan.final
    on_rank_0(lambda: _remove(_partial(plan.final), _partial(plan.adapter)))
    with os_errors(plan.folder, "written"):
        trainer.save_model(str(_partial(saved)))
    on_rank_0(lambda: _settle(plan, saved, start, trainer, facts))


def ready_start(plan: Plan) -> str:
    """The model to start from, as a folder or a name; on rank 0 alone.

    A student with an adapter is merged first, into a folder that is known by what it was made of.

    Raises:
        JournalError: it cannot be written.
    """
    start = plan.start
    if start.adapter is None or plan.continues:
        return start.model
    merged = plan.run.model("start") / fingerprint(dict(start.identity))
    if not merged.exists():
        _remove(_partial(merged))
        trust = plan.recipe.student.trust_remote_code
        options = {"revision": start.revision, "trust_remote_code": trust, "dtype": "auto"}
        base = load_base("sft", start.model, **options)
        tokenizer = AutoTokenizer.from_pretrained(start.model, **options)
        merge(base, start.adapter, tokenizer, _partial(merged))
        _put(merged)
    return str(merged)


def _settle(
    plan: Plan, saved: Path, start: str, trainer: Trainer, facts: Mapping[str, Any]
) -> None:
    # The Trainer's arguments, pickled: nothing that a model needs, and nobody should load it.
    (_partial(saved) / "training_args.bin").unlink(missing_ok=True)
    # The reference's copy of an adapter that was trained on.
    shutil.rmtree(_partial(saved) / "ref", ignore_errors=True)
    if fault := weights_fault(_partial(saved)):
        raise TrainError(
            f"the model could not be saved whole: {fault}",
            file=_partial(saved),
            mend="set zero3_save_16bit_model: true (DeepSpeed) or "
            "fsdp_state_dict_type: FULL_STATE_DICT (FSDP) in the launcher's config file",
        )
    if saved == plan.adapter:
        base = load_base(plan.stage, start, **_loading(trainer.args))
        merge(base, _partial(saved), trainer.processing_class, _partial(plan.final))
        _put(plan.adapter)
    _put(plan.final)
    plan.run.write_text(plan.manifest, json.dumps(_manifest(plan, facts), indent=2) + "\n")


def _loading(args: Config) -> dict[str, Any]:
    """How the adapter's base is loaded again: as it was trained, but never quantized."""
    given = {"dtype": "float32", **(args.model_init_kwargs or {})}
    options = {key: given[key] for key in ("dtype", "revision") if key in given}
    return {**options, "trust_remote_code": args.trust_remote_code}


def _manifest(plan: Plan, facts: Mapping[str, Any]) -> dict[str, Any]:
    weights = {p.name: p for p in sorted(plan.final.iterdir()) if p.suffix == _WEIGHTS}
    return {
        "fingerprint": plan.fingerprint,
        "depends": plan.depends,
        "weights": {
            name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for name, p in weights.items()
        },
        **facts,
        "versions": {name: _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None  # run from a checkout that is not installed


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _put(folder: Path) -> None:
    """Move a finished folder to its place, durably."""
    with os_errors(folder, "written"):
        for file in _partial(folder).iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(_partial(folder))
        _remove(folder)
        _partial(folder).rename(folder)
        sync_folder(folder.parent)


def _remove(*folders: Path) -> None:
    for folder in folders:
        with os_errors(folder, "written"):
            if folder.exists():
                shutil.rmtree(folder)
