"""A loop before it is done: its stages in order, and what each is made of.

    the loop's recipe → Planned, a stage at a time → refuse_changes: does it fit what is finished?
                                                   → rounds.py does it

What a stage is made of follows from what those before it are made of, not from what they have put
out, so that it is known before any is paid for. Nothing is written here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif.errors import RecipeError
from rlaif.loop import round_recipe, stage
from rlaif.loop.depends import Inputs, depends
from rlaif.loop.figures import Figures
from rlaif.loop.finished import TRAINING, Label
from rlaif.loop.places import figures_file
from rlaif.loop.running import Running
from rlaif.loop.state import State
from rlaif.recipe import Model, Recipe
from rlaif.records import fingerprint
from rlaif.run_folder import RunFolder
from rlaif.strict_model import validate
from rlaif.strict_yaml import Document, Place

Who = Literal["teacher", "student"]


@dataclass(frozen=True, slots=True)
class Made:
    """A model of the loop, or one that it was given.

    Attributes:
        model: as a section of a recipe.
        key: what it is known by: digests, or the key of the training that made it.
    """

    model: Model
    key: Any


@dataclass(frozen=True, slots=True)
class Planned:
    """A stage that is to be done, or was.

    Attributes:
        label: which.
        recipe: its round's, as plain data.
        made_of: all that decides its output.
        student: what a training leaves as the student of what follows; None for other stages.
    """

    label: Label
    recipe: dict[str, Any]
    made_of: dict[str, Any]
    student: Made | None = None


Earlier = list[tuple[RunFolder, Any]]
"""Folders whose rows are trained on as well, each with the key of what made them."""


def seed(running: Running) -> tuple[Planned | None, Made]:
    """What is taught before the first round, if anything, and the student that it begins with."""
    given = running.recipe.student
    first = Made(given, running.digests.model(given))
    if running.loop.seeds is None:
        return None, first
    run = running.folder.seed
    recipe = round_recipe.seed_recipe(running.recipe, run)
    inputs = Inputs(running.recipe, Recipe(**recipe), first.key, None, digests=running.digests)
    made_of = depends("seed", inputs, None)
    student = _made(running, run, "sft", given, fingerprint(made_of))
    return Planned(Label.of(-1, "seed"), recipe, made_of, student), student


def earlier_rows(running: Running, seeded: Made) -> Earlier:
    """What the first round is trained on besides its own rows."""
    seeds, found = running.loop.seeds, list[tuple[RunFolder, Any]]()
    if seeds is not None and seeds.repeat:
        found.append((running.folder.seed, seeded.key))
    if seeds is not None and seeds.evaluation_pairs:
        found.append((running.folder.judgements, [seeded.key, "judgements"]))
    return found


def teacher(running: Running) -> Made:
    """The recipe's teacher."""
    return Made(running.recipe.teacher, running.digests.model(running.recipe.teacher))


def who_labels(running: Running, rounds: Sequence[Figures]) -> Who:
    """Who labels the round that comes after others."""
    loop, gate = running.loop, running.recipe.gate
    if loop.judge != "hand_over":
        return loop.judge
    if not rounds or gate is None:
        return "teacher"
    last = rounds[-1]
    if last.judge == "student":
        return "student"  # what was handed over stays so; the gate still holds
    passes, accuracy = last.student_passes, last.student_accuracy
    if passes is None:  # figures of a version that told the accuracy alone
        passes = accuracy is not None and (accuracy.low or 0.0) >= gate.min_accuracy
    return "student" if passes else "teacher"


def stages(
    running: Running, number: int, attempt: int, student: Made, judge: Made, earlier: Earlier
) -> Iterator[Planned]:
    """A round's stages, in order.

    Prompts that a round makes for itself are read when the stage after them is asked for.

    Args:
        running: the loop.
        number, attempt: the round's.
        student: that it begins with.
        judge: that labels it.
        earlier: rows that are trained on as well.
    """
    run = running.folder.round(number)

    def inputs_with(prompts: Path | None) -> tuple[dict[str, Any], Inputs]:
        recipe = round_recipe.round_recipe(
            running.recipe, run, number, student=student.model, judge=judge.model,
            earlier=[folder for folder, _ in earlier], prompts=prompts, attempt=attempt,
        )  # fmt: skip
        keys = tuple(key for _, key in earlier)
        return recipe, Inputs(
            running.recipe, Recipe(**recipe), student.key, judge.key, keys, running.digests
        )

    after: str | None = student.key if isinstance(student.key, str) else None
    recipe, inputs = inputs_with(None)
    if has_own_prompts(running, number):
        made_of = depends("prompts", inputs, after)
        yield Planned(Label.of(number, "prompts"), recipe, made_of)
        after = fingerprint(made_of)
        recipe, inputs = inputs_with(stage.new_prompts_file(run))
    behind = inputs.recipe.critic is not None or inputs.recipe.filter is not None
    trained = round_recipe.training_stages(running.recipe, number)
    for name in ("sample", "judge", *(["filter"] if behind else []), *trained, "evaluate"):
        made_of = depends(name, inputs, after)
        key, made = fingerprint(made_of), None
        if name in TRAINING and name != "reward":
            made = _made(running, run, name, student.model, key)
        yield Planned(Label.of(number, name), recipe, made_of, made)
        if name != "reward":
            after = key


def has_own_prompts(running: Running, number: int) -> bool:
    """Whether a round begins with making prompts."""
    return running.loop.prompts == "gaps" and number > 0


def _made(running: Running, run: RunFolder, last: str, start: Model, key: Any) -> Made:
    """What a training has left, as the student of what follows."""
    if running.loop.lora == "continue" and running.recipe.train.lora is not None:
        adapter = run.model(last) / "adapter"
        return Made(start.model_copy(update={"adapter": adapter}), key)
    changes = {"model": str(run.model(last) / "final"), "revision": None, "adapter": None}
    return Made(start.model_copy(update=changes), key)


def read_figures(file: Path) -> Figures | None:
    """A round's figures; None where it has none yet."""
    return Figures.from_dict(json.loads(file.read_bytes())) if file.is_file() else None


# What is refused before anything is done


def refuse_changes(running: Running, state: State, first: Label | None) -> None:
    """Hold the recipe against all that is finished.

    Args:
        running: the loop.
        state: as it was left.
        first: of what is to be done again, which may change; None: nothing is.

    Raises:
        RecipeError: it would change what is finished; names the differences.
    """
    planned, student = seed(running)
    if planned is not None and not _stays(running, planned, first):
        return
    given, rounds, earlier = teacher(running), list[Figures](), earlier_rows(running, student)
    for number in range(running.loop.rounds):
        figures = read_figures(figures_file(running.folder.round(number)))
        if figures is not None and state.is_rolled_back(number, figures.attempt):
            return  # what is left of it is to be cleared away
        judge = student if who_labels(running, rounds) == "student" else given
        attempt = state.attempt(number)
        for planned in stages(running, number, attempt, student, judge, earlier):
            if not _stays(running, planned, first):
                return
            student = planned.student or student
        if figures is None:
            return
        rounds.append(figures)
        if running.loop.data == "accumulate":
            earlier.append((running.folder.round(number), student.key))


def _stays(running: Running, planned: Planned, first: Label | None) -> bool:
    """Whether a stage is none of those that are done again; if it is finished, it has to fit."""
    if first is not None and planned.label >= first:
        return False
    running.finished.holds(planned.label, planned.made_of, running.file)
    return True


def refuse_what_cannot_be_done(running: Running) -> None:
    """Refuse what would come to light after some rounds.

    Raises:
        RecipeError: a round would train nothing, seeds have no training, or `loop.retry` makes
            something of the recipe that is none.
    """
    train, loop = running.recipe.train, running.loop
    for number in range(loop.rounds):
        if not {"sft", "dpo"} & set(round_recipe.training_stages(running.recipe, number)):
            blocks = "only `sft`, and that once" if train.sft is not None else "none"
            raise RecipeError(
                f"round {number} would train no student: the recipe has {blocks}",
                file=running.file, key="train", mend="add `train.dpo`, or `loop.sft: every`",
            )  # fmt: skip
    if loop.seeds is not None and loop.seeds.evaluation_pairs:
        lacks = "train.dpo" if train.dpo is None else "loop.seeds.evaluations"
        if train.dpo is None or loop.seeds.evaluations is None:
            raise RecipeError(
                f"pairs of verdicts without {lacks}", file=running.file,
                key="loop.seeds.evaluation_pairs", value=loop.seeds.evaluation_pairs,
                mend="add it, or set evaluation_pairs to 0",
            )  # fmt: skip
    if loop.seeds is not None and train.sft is None:
        raise RecipeError(
            "seeds are fine-tuned on", file=running.file, key="train.sft",
            mend="add it; `{}` takes TRL's defaults",
        )  # fmt: skip
    if loop.retry:
        _refuse_bad_retry(running)


def _refuse_bad_retry(running: Running) -> None:
    run, recipe = running.folder.round(0), running.recipe
    made = round_recipe.round_recipe(
        recipe, run, 0, student=recipe.student, judge=recipe.teacher, attempt=1
    )
    try:
        validate(Recipe, Document(run.recipe, made, {(): Place(1)}))
    except RecipeError as error:
        key = ".".join(filter(None, ("loop.retry", error.key)))
        shown: dict[str, Any] = {} if error.value is None else {"value": error.value}
        raise RecipeError(
            error.what, file=running.file, key=key, mend=error.mend, **shown
        ) from None
