"""A recipe cut down for a probe: fewer prompts and steps; everything else is the recipe's own.

recipe → probe_recipe → RUN/estimate/recipe.yaml
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rlaif.loop.spending import devices
from rlaif.recipe import PairChoice, Prompts, Recipe

STEPS = 8
"""Of a training, in a probe; the first is not counted."""
GAP_CALLS = 16
"""Questions for gaps among the prompts, in a probe."""

_BATCH = 8  # transformers' default
_NOT_IN_A_PROBE: dict[str, Any] = {
    "save_strategy": "no",
    "eval_strategy": "no",
    "eval_on_start": False,
    "load_best_model_at_end": False,
    "report_to": "none",
    "push_to_hub": False,
}


def probe_recipe(recipe: Recipe, scratch: Path, prompts: int, evaluated: int) -> Recipe:
    """The recipe of a probe.

    Every training is there that any round has. Drift is only told of: what a few rows are
    distributed as says little, and without rows nothing can be trained.

    Args:
        recipe: with a `loop` section.
        scratch: the probe's folder, with prompts.jsonl and, where there is an evaluation,
            evaluate.jsonl.
        prompts, evaluated: how many there are in them.
    """
    assert recipe.loop is not None
    changes: dict[str, Any] = {
        "run": str(scratch),
        "prompts": _prompts(scratch / "prompts.jsonl", prompts),
        "train": recipe.train.model_copy(
            update={
                **{name: _short(getattr(recipe.train, name)) for name in ("sft", "dpo", "reward")},
                "dpo_pairs": _without_limit(recipe.train.dpo_pairs),
                "reward_pairs": _without_limit(recipe.train.reward_pairs),
            }
        ),
        "loop": recipe.loop.model_copy(
            update={"prompts": "same", "sft": "every", "report_to": (), "push_to_hub": None}
        ),
    }
    if evaluated:
        source = _prompts(scratch / "evaluate.jsonl", evaluated)
        changes["evaluate"] = recipe.evaluate.model_copy(update={"prompts": source})
    if recipe.filter is not None and recipe.filter.drift is not None:
        drift = recipe.filter.drift.model_copy(update={"on_alarm": "warn"})
        changes["filter"] = recipe.filter.model_copy(update={"drift": drift})
    return recipe.model_copy(update=changes)


def gaps_recipe(recipe: Recipe, scratch: Path, calls: int) -> Recipe:
    """The recipe with its own prompts, and so many questions for the gaps among them."""
    topics = recipe.topics.model_copy(update={"calls": min(calls, recipe.topics.calls)})
    return recipe.model_copy(update={"run": str(scratch), "topics": topics})


def rows_a_step(recipe: Recipe, stage: str) -> int:
    """Rows of one step of a training, as far as can be told before it is launched."""
    assert recipe.loop is not None
    block = getattr(recipe.train, stage) or {}
    rows = int(block.get("per_device_train_batch_size", _BATCH))
    return rows * int(block.get("gradient_accumulation_steps", 1)) * _processes(recipe.loop.launch)


def _processes(launch: Path | None) -> int:
    """That a launch starts; without a config file, accelerate starts one a GPU."""
    if launch is None:
        return devices()
    told = yaml.safe_load(Path(launch).read_text("utf-8"))
    return int(told.get("num_processes", 1)) if isinstance(told, dict) else 1


def _prompts(file: Path, count: int) -> Prompts:
    """In two shards: what the second takes is what a shard takes, without any start."""
    return Prompts(path=str(file), shard_size=-(-count // 2))


def _short(block: dict[str, Any] | None) -> dict[str, Any] | None:
    if block is None:
        return None
    own = int(block.get("max_steps", -1))
    return block | _NOT_IN_A_PROBE | {"max_steps": min(STEPS, own) if own > 0 else STEPS}


def _without_limit(choice: PairChoice) -> PairChoice:
    return choice.model_copy(update={"limit": None})
