"""A constitution's examples, put to a model that is loaded for it: `rlaif constitution test`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import get_args

from rlaif.constitution import Constitution
from rlaif.engines.load import load_engine
from rlaif.errors import ConstitutionError, RecipeError
from rlaif.evaluate.constitution_test import CLEAR, ExampleScore, Pull, judge_examples
from rlaif.label.method import Method, Mode
from rlaif.recipe import Judge, Model, Recipe


def judge_with(teacher: str | None, recipe: Path | None, mode: str | None) -> tuple[Model, Judge]:
    """The teacher and its way of asking: a recipe's, or a model's by its name alone.

    Args:
        teacher: a model's folder, or its name on the hub.
        recipe: a recipe's file.
        mode: goes before the recipe's; None takes that, or pointwise where there is no recipe.

    Raises:
        RecipeError: neither or both are given, no such mode, or a recipe that cannot be used.
    """
    if (teacher is None) == (recipe is None):
        found = "neither" if teacher is None else "both"
        mend = "give exactly one of them"
        raise RecipeError("needs --teacher or --recipe", value=found, mend=mend)
    if mode is not None and mode not in get_args(Mode):
        mend = f"use one of {', '.join(get_args(Mode))}"
        raise RecipeError("no such mode", key="--mode", value=mode, mend=mend)
    changes = {} if mode is None else {"mode": mode}
    if recipe is not None:
        loaded = Recipe.load(recipe)
        return loaded.teacher, loaded.judge.model_copy(update=changes)
    return Model(model=str(teacher)), Judge().model_copy(update=changes)


def try_examples(
    constitution: Constitution, teacher: Model, settings: Judge, clear: float = CLEAR
) -> tuple[list[ExampleScore], list[Pull]]:
    """As `judge_examples`, with the model loaded and given back.

    Raises:
        ConstitutionError: there are no examples.
        RlaifError: the model or a template cannot be used.
    """
    if not any(p.examples for p in constitution.principles):
        raise ConstitutionError(
            f"{constitution.name} has no examples to test a teacher on",
            mend="write two or three for each principle: prompt, better, worse",
        )
    with closing(load_engine(teacher)) as engine:
        method = Method.load(settings)
        return judge_examples(constitution, engine, method, clip=settings.clip, clear=clear)
