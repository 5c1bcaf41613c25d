"""RUN/models/<stage>: everything in it is of one fingerprint and of one launch.

run → open_folder → (training) → final → close_folder
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rlaif.errors import TrainError
from rlaif.manifest import changes
from rlaif.run_folder import os_errors
from rlaif.train.checkpoints import newest_whole
from rlaif.train.launch import Launch
from rlaif.train.plan import Plan, read_json

_NOTE = "plan.json"


def open_folder(plan: Plan, launch: Launch) -> str | None:
    """Make the folder ready for a plan; on rank 0 alone.

    Returns:
        The checkpoint to go on from; None to begin.

    Raises:
        TrainError: its checkpoints are of the same plan, but of another launch.
        JournalError: something cannot be read, written or moved.
    """
    note = read_json(plan.folder / _NOTE)
    if plan.folder.exists() and note.get("fingerprint") != plan.fingerprint:
        _set_aside(plan, note)
    _refuse_other_launch(plan, launch, note)
    checkpoint = newest_whole(
        plan.folder,
        launch.world_size,
        lambda name, why: _log(plan, "incomplete", checkpoint=name, why=why),
    )
    made = {"fingerprint": plan.fingerprint, "depends": plan.depends, "launch": asdict(launch)}
    plan.run.write_text(plan.folder / _NOTE, json.dumps(made, indent=2) + "\n")
    _log(plan, "train", resumed_from=checkpoint and checkpoint.name, **asdict(launch))
    return None if checkpoint is None else str(checkpoint)


def close_folder(
    plan: Plan,
    facts: Mapping[str, Any],
    checkpoint: str | None,
    steps: int,
    seconds: Mapping[str, float],
) -> None:
    """Log what was trained, and remove what only the training needed; on rank 0 alone."""
    times = {name: round(value, 3) for name, value in seconds.items()}
    _log(plan, "trained", **facts, resumed=checkpoint is not None, steps=steps, seconds=times)
    with os_errors(plan.cache, "written"):
        if plan.cache.exists():
            shutil.rmtree(plan.cache)


def _set_aside(plan: Plan, note: Mapping[str, Any]) -> None:
    """Move the folder of another plan, and its manifest, out of the way, whole."""
    name = f"{plan.stage}.{note.get('fingerprint', 'unknown')}"
    places = (plan.folder.with_name(f"{name}.{n}" if n else name) for n in range(10_000))
    aside = next(place for place in places if not place.exists())
    with os_errors(aside, "written"):
        plan.folder.rename(aside)
        if plan.manifest.exists():
            plan.manifest.rename(aside / "manifest.json")
    why = "; ".join(changes(note.get("depends", {}), plan.depends))
    _log(plan, "set_aside", to=aside.name, why=why)


def _refuse_other_launch(plan: Plan, launch: Launch, note: Mapping[str, Any]) -> None:
    """A checkpoint holds each process's own state: another number of them cannot go on from it."""
    before = note.get("launch")
    if before not in (None, asdict(launch)) and any(plan.folder.glob("checkpoint-*")):
        raise TrainError(
            f"was begun with {_words(before)}; this launch has {_words(asdict(launch))}",
            file=plan.folder,
            mend="launch as before to go on, or remove the folder to begin again",
        )


def _words(launch: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in launch.items())


def _log(plan: Plan, event: str, **fields: object) -> None:
    plan.run.log(event, stage=f"models/{plan.stage}", **fields)
