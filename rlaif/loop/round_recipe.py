"""The recipe of one round: an ordinary one, which every other command takes as well.

    the loop's recipe + student + judge + earlier rounds → RUN/rounds/NN/recipe.yaml

What a round is made of is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif import strict_yaml
from rlaif.recipe import Model, Prompts, Recipe
from rlaif.run_folder import RunFolder

_NOT_A_ROUNDS: dict[str, Any] = {"loop": None, "costs": {}, "budget": {}}


def seed_recipe(recipe: Recipe, run: RunFolder) -> dict[str, Any]:
    """What is taught before the first round: SFT, on the seeds alone."""
    found = recipe.model_dump(mode="json") | _NOT_A_ROUNDS
    train = found["train"] | {"dpo": None, "reward": None, "also": []}
    return found | {"run": str(run.root), "train": train}


def round_recipe(
    recipe: Recipe,
    run: RunFolder,
    number: int,
    *,
    student: Model,
    judge: Model,
    earlier: Sequence[RunFolder] = (),
    prompts: Path | None = None,
    attempt: int = 0,
) -> dict[str, Any]:
    """The recipe of a round, as plain data.

    Args:
        recipe: the loop's.
        run: the round's folder.
        number: the round's, from 0.
        student: what samples, and what training starts from (or `loop.start` says otherwise).
        judge: what labels.
        earlier: folders whose rows are trained on as well, beside those that the recipe names.
        prompts: a file of prompts made for this round; None takes the recipe's.
        attempt: how often the round was rolled back; from 1 on, `loop.retry` applies.
    """
    loop = recipe.loop
    assert loop is not None
    found = recipe.model_dump(mode="json") | _NOT_A_ROUNDS
    train = found["train"] | {
        "also": [*map(str, recipe.train.also), *(str(folder.root) for folder in earlier)],
        # The recipe's own student may have an adapter to go on with where rounds merge theirs.
        "continue_adapter": recipe.train.continue_adapter or loop.lora == "continue",
    }
    if loop.start == "first" and number:
        train["start"] = recipe.student.model_dump(mode="json")
    found |= {
        "run": str(run.root),
        "student": student.model_dump(mode="json"),
        "teacher": judge.model_dump(mode="json"),
        "prompts": prompts_of_round(recipe, number, prompts).model_dump(mode="json"),
        "train": train,
    }
    if attempt:
        # Other draws, and whatever else the recipe wants changed.
        found = merged(found, {"seed": recipe.seed + 1_000_003 * attempt, **loop.retry})
    if not trains_sft(recipe, number):  # DPO would start from what it has trained
        found = merged(found, {"train": {"sft": None}})
    return found


def trains_sft(recipe: Recipe, number: int) -> bool:
    """Whether a round fine-tunes on its picks; with seeds, they are the first fine-tuning."""
    loop = recipe.loop
    assert loop is not None
    if recipe.train.sft is None:
        return False
    return loop.sft == "every" or (number == 0 and loop.seeds is None)


def training_stages(recipe: Recipe, number: int) -> list[str]:
    """What a round trains, in order."""
    train = recipe.train
    stages = ["sft"] if trains_sft(recipe, number) else []
    stages += ["dpo"] if train.dpo is not None else []
    return [*stages, *(["reward"] if train.reward is not None else [])]


def prompts_of_round(recipe: Recipe, number: int, made: Path | None) -> Prompts:
    """Where a round's prompts come from: those `made` for it, or the recipe's."""
    given = recipe.prompts
    if made is not None:
        return Prompts(path=str(made), shard_size=given.shard_size)
    if recipe.loop is not None and recipe.loop.prompts == "next" and given.limit is not None:
        return given.model_copy(update={"skip": given.skip + number * given.limit})
    return given


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; where both say something, `over` does."""
    found = dict(under)
    for key, value in over.items():
        old = found.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        found[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return found


def write_recipe(run: RunFolder, recipe: Mapping[str, Any]) -> Recipe:
    """Put a recipe into its run folder, unless it is there already, and load it.

    Raises:
        RecipeError: `loop.retry` makes something of it that is no recipe.
    """
    text = strict_yaml.dump(dict(recipe))
    if not run.recipe.is_file() or run.recipe.read_text("utf-8") != text:
        run.write_text(run.recipe, text)
    return Recipe.load(run.recipe)
