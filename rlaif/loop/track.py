"""The loop's own figures, a step a round, in whatever trackers the recipe names.

Figures → TensorBoard, W&B, Trackio, …: what TRL's `report_to` takes, through accelerate
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.errors import RecipeError
from rlaif.loop.figures import Figures
from rlaif.recipe import Recipe


def track(loop: Recipe, root: Path, figures: Figures) -> None:
    """Send a round's figures to the recipe's trackers.

    Args:
        loop: the loop's recipe.
        root: its folder; trackers that write files write them to ``root/tracked``.
        figures: of the round; its number is the step.

    Raises:
        RecipeError: no such tracker, or its library is not there.
    """
    made_by = trackers(loop)
    if made_by:
        from accelerate import PartialState

        PartialState()  # without it, those that tell the log what they do fail
    for name, made in made_by.items():
        folder = root / "tracked"
        folder.mkdir(parents=True, exist_ok=True)
        tracker = made("rlaif", **_given(name, made, folder))
        getattr(tracker, "start", lambda: None)()
        tracker.log(scalars(figures), step=figures.round)
        tracker.finish()


def _given(name: str, made: Any, folder: Path) -> dict[str, str]:
    """What a tracker has to be told so that all rounds are steps of one run of it.

    A round is tracked by a process of its own, so the run is found again by its name.
    """
    file = folder / "run"
    if not file.exists():
        file.write_text(f"{folder.parent.name}-{uuid.uuid4().hex[:8]}\n")
    run = file.read_text().strip()
    if name == "wandb":
        return {"id": run, "name": run, "resume": "allow", "dir": str(folder)}
    if name == "trackio":
        return {"name": run, "resume": "allow"}
    return {"logging_dir": str(folder)} if made.requires_logging_directory else {}


def trackers(loop: Recipe) -> dict[str, Any]:
    """The classes of accelerate's trackers that a recipe names, by name.

    Raises:
        RecipeError: no such tracker, or its library is not there.
    """
    names = [name for name in loop.loop.report_to if name != "none"] if loop.loop else []
    if not names:
        return {}
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = {str(key): made for key, made in LOGGER_TYPE_TO_CLASS.items()}
    there = {str(key) for key in get_available_trackers()}
    for name in names:
        if name not in known:
            raise RecipeError(
                "no such tracker", key="loop.report_to", value=name,
                mend=f"use {', '.join(sorted(known))}",
            )  # fmt: skip
        if name not in there:
            raise RecipeError(
                "its library is not installed", key="loop.report_to", value=name,
                mend=f"pip install {name}",
            )  # fmt: skip
    return {name: known[name] for name in names}


def scalars(figures: Figures) -> dict[str, float]:
    """The figures as one flat mapping of numbers, by slashed names."""
    found: dict[str, float] = {}
    _flatten("loop", figures.as_dict(), found)
    return {k: v for k, v in found.items() if k not in ("loop/round", "loop/attempt")}


def _flatten(name: str, value: Any, found: dict[str, float]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _flatten(name if key == "value" else f"{name}/{key}", inner, found)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found[name] = float(value)
