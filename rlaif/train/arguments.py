"""A recipe's block → the config of TRL's trainer, strictly: an unknown key is a fault.

plan → Config → launch, trainer

Making the config also starts the process group: `transformers.TrainingArguments` does so.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeAlias

import torch
from trl import DPOConfig, RewardConfig, SFTConfig

from rlaif.errors import RecipeError
from rlaif.train.plan import Plan

Config: TypeAlias = SFTConfig | DPOConfig | RewardConfig

CONFIGS: dict[str, Any] = {"sft": SFTConfig, "dpo": DPOConfig, "reward": RewardConfig}

# TRL's defaults are a GPU's. `use_cpu` is more than a default: without it, two processes on a
# machine without an accelerator are each a world of one.
_ON_A_CPU = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
}


def config(plan: Plan) -> Config:
    """The stage's block as TRL's config, with what the run folder and the recipe decide filled in.

    Raises:
        RecipeError: a key that TRL does not know, a value of the wrong type, or one that TRL
            refuses.
    """
    made: Any = CONFIGS[plan.stage]
    key = f"train.{plan.stage}"
    check_keys(plan.block, made, key, plan.recipe_file)
    block = {**({} if torch.accelerator.is_available() else _ON_A_CPU), **plan.block}
    block.setdefault("seed", plan.recipe.seed)
    block.setdefault("trust_remote_code", plan.recipe.student.trust_remote_code)
    if plan.start.revision is not None:
        loading = {"revision": plan.start.revision, **(block.get("model_init_kwargs") or {})}
        block["model_init_kwargs"] = loading
    try:
        return made(output_dir=str(plan.folder), **block)
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(str(error), file=plan.recipe_file, key=key) from error


def check_keys(block: dict[str, Any], target: Any, key: str, recipe_file: str | Path) -> None:
    """Check a block's keys and plain values against the dataclass that it is for.

    Raises:
        RecipeError: an unknown key, with the nearest known one; text where a number or a truth
            value belongs, or the reverse.
    """
    hints = typing.get_type_hints(target)
    known = {f.name for f in dataclasses.fields(target) if f.init}
    for name, value in block.items():
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            mend = f"did you mean {close[0]!r}?" if close else f"see {target.__name__}"
            raise RecipeError(
                f"unknown key of {target.__name__}",
                file=recipe_file,
                key=f"{key}.{name}",
                mend=mend,
            )
        if (wanted := _misfit(value, hints[name])) is not None:
            raise RecipeError(f"not {wanted}", file=recipe_file, key=f"{key}.{name}", value=value)


def _misfit(value: object, hint: Any) -> str | None:
    """What the value should be, where the hint allows nothing but numbers or truth values."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    allowed = set(typing.get_args(hint) if union else (hint,))
    if value is None or not allowed <= {int, float, bool, type(None)}:
        return None
    if bool in allowed:
        return None if isinstance(value, bool) else "true or false"
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return None if good else "a number"
