"""`rlaif loop RECIPE`: rounds, each of which makes the student that the next one begins with.

    (seed) → round 0 → round 1 → …        seed: SFT on instructions and on how to judge

    round:  (prompts) → sample → judge → (filter) → (sft) → (dpo) → (reward) → evaluate
              gaps      student  teacher             `accelerate launch`        yardstick: teacher
                                 or student          rows of all rounds so far
            → governor: go on, try again, or stop; RUN/best/ is the best round's model

Each stage is a process of its own. This one loads no model, and what it knows it reads from the run
folder: started again after any end, it goes on where it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif import strict_yaml
from rlaif.errors import GateError, RecipeError
from rlaif.loop import round_recipe, stage
from rlaif.loop.child import signals
from rlaif.loop.depends import Digests, Inputs
from rlaif.loop.figures import Figures
from rlaif.loop.finished import Finished, Label
from rlaif.loop.governor import check
from rlaif.loop.leftovers import begin, end_descendants, remove_leftovers
from rlaif.loop.places import LoopFolder, figures_file
from rlaif.loop.running import Running, Say, check_training, do_stage
from rlaif.loop.state import Ruled, State, put_best
from rlaif.manifest import Manifest
from rlaif.recipe import Loop, Model, Recipe
from rlaif.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Made:
    """A model of the loop, or one that it was given.

    Attributes:
        model: as a section of a recipe.
        key: what it is known by: digests, or the key of the training that made it.
    """

    model: Model
    key: Any


def run_loop(recipe_file: Path, *, restart_from: str | None = None, say: Say = print) -> State:
    """Run a recipe's rounds to the last, or to where they have to stop; go on where they were.

    Args:
        recipe_file: with or without a `loop` section; without one, it is one round.
        restart_from: "ROUND/STAGE": do it and all behind it again.
        say: is told what happens.

    Raises:
        RecipeError: the recipe cannot be used, or would change what is finished.
        JournalError: another process works in the folder, the disk is full, and so on.
        TrainError: a stage failed; what is finished is kept.
        BudgetError: the budget is spent; the run can be gone on with.
        InterruptedLoopError: a signal asked to end.
    """
    recipe = Recipe.load(recipe_file)
    if recipe.loop is None:
        recipe = recipe.model_copy(update={"loop": Loop(rounds=1)})
    folder = LoopFolder(Path(recipe.run).absolute())
    running = Running(recipe_file, recipe, folder, Finished(folder), Digests(), say)
    _refuse_empty_rounds(running)
    first = None if restart_from is None else Label.read(restart_from)
    with folder.run.lock(), signals():
        begin(folder)
        end_descendants(folder)
        remove_leftovers(folder, say)
        check_training(running)
        try:
            _begin(running, first)
            return _rounds(running)
        except RecipeError:
            running.put_back()
            raise


def _refuse_empty_rounds(running: Running) -> None:
    """A round that trains nothing ends with the student that it began with."""
    for number in range(running.loop.rounds):
        stages = round_recipe.training_stages(running.recipe, number)
        if not {"sft", "dpo"} & set(stages):
            blocks = "only `sft`, and that once" if running.recipe.train.sft is not None else "none"
            raise RecipeError(
                f"round {number} would train no student: the recipe has {blocks}",
                file=running.file, key="train", mend="add `train.dpo`, or `loop.sft: every`",
            )  # fmt: skip


def _begin(running: Running, first: Label | None) -> None:
    """Tell that the loop runs, and forget what is to be done again."""
    running.remember(running.folder.state)
    state = State.read(running.folder)
    if first is not None:
        state.forget_after(first.round)
    if first is not None or state.status != "running":
        state.status = "running"
        state.write(running.folder)
    if first is not None:
        running.finished.forget_from(first)


def _rounds(running: Running) -> State:
    folder, loop = running.folder, running.loop
    before = State.read(folder)
    state = State(rolled_back=_still_rolled_back(running, before))
    _keep_inputs(running)
    student = _seeded(running)
    teacher = Made(running.recipe.teacher, running.digests.model(running.recipe.teacher))
    earlier: list[tuple[RunFolder, Any]] = []
    if loop.seeds is not None and loop.seeds.repeat:
        earlier.append((folder.seed, student.key))
    for number in range(loop.rounds):
        while True:
            who = _judge(running, state, number)
            judge = student if who == "student" else teacher
            attempt = state.attempt(number)
            _clear_rolled_back(folder, state, number)
            made, figures = _round(running, state, number, attempt, student, judge, who, earlier)
            if isinstance(figures, Ruled):  # the judge falls short, or there is nothing to learn
                return _stop(running, state, figures)
            if number == 0:
                state.base = _before(folder.round(0))
            fault = check(state.base, [*state.rounds, figures], loop.stop)
            if fault is None:
                break
            ruled = Ruled(number, attempt, fault.rule, fault.reason)
            if attempt >= loop.retries:
                state.rounds.append(figures)
                return _stop(running, state, ruled)
            running.say(f"round {number} is rolled back: {fault.reason}")
            state.rolled_back.append(ruled)
            state.write(folder)
        state.rounds.append(figures)
        if loop.data == "accumulate":
            earlier.append((folder.round(number), made.key))
        student = made
        if before.rounds[: number + 1] != state.rounds:  # else it was told before
            _settle(running, state)
    state.status = "finished"
    _settle(running, state)
    return state


def _stop(running: Running, state: State, ruled: Ruled) -> State:
    state.status, state.stopped = "stopped", ruled
    _settle(running, state)
    running.say(f"stopped in round {ruled.round}: {ruled.reason}")
    return state


def _settle(running: Running, state: State) -> None:
    """Write the state; RUN/best/ is the best round's model."""
    found = state.best
    put_best(running.folder, None if found is None else _final(running, found.round))
    state.write(running.folder)


def _final(running: Running, number: int) -> Path:
    """The model that a round has made."""
    stages = round_recipe.training_stages(running.recipe, number)
    last = [s for s in stages if s != "reward"][-1]
    return running.folder.round(number).model(last) / "final"


def _judge(running: Running, state: State, number: int) -> Literal["teacher", "student"]:
    """Who labels a round."""
    loop, gate = running.loop, running.recipe.gate
    if loop.judge != "hand_over":
        return loop.judge
    if number == 0 or gate is None:
        return "teacher"
    if state.rounds[-1].judge == "student":
        return "student"  # what was handed over stays so; the gate still holds
    last = state.rounds[-1]
    passes, accuracy = last.student_passes, last.student_accuracy
    if passes is None:  # figures of a version that told the accuracy alone
        passes = accuracy is not None and (accuracy.low or 0.0) >= gate.min_accuracy
    return "student" if passes else "teacher"


def _seeded(running: Running) -> Made:
    """The student that the first round begins with."""
    given = running.recipe.student
    first = Made(given, running.digests.model(given))
    if running.loop.seeds is None:
        return first
    if running.recipe.train.sft is None:
        raise RecipeError(
            "seeds are fine-tuned on", file=running.file, key="train.sft",
            mend="add it; `{}` takes TRL's defaults",
        )  # fmt: skip
    run = running.folder.seed
    running.remember(run.recipe)
    recipe = round_recipe.write_recipe(run, round_recipe.seed_recipe(running.recipe, run))
    inputs = Inputs(running.recipe, recipe, first.key, None, digests=running.digests)
    key = do_stage(running, Label.of(-1, "seed"), run, inputs, None, 0, "teacher")
    return _made(running, run, "sft", given, key)


def _made(running: Running, run: RunFolder, last: str, start: Model, key: Any) -> Made:
    """What a training has left, as the student of what follows."""
    if running.loop.lora == "continue" and running.recipe.train.lora is not None:
        adapter = run.model(last) / "adapter"
        return Made(start.model_copy(update={"adapter": adapter}), key)
    changes = {"model": str(run.model(last) / "final"), "revision": None, "adapter": None}
    return Made(start.model_copy(update=changes), key)


def _round(
    running: Running,
    state: State,
    number: int,
    attempt: int,
    student: Made,
    judge: Made,
    who: Literal["teacher", "student"],
    earlier: list[tuple[RunFolder, Any]],
) -> tuple[Made, Figures | Ruled]:
    """All stages of a round, from wherever they were left."""
    folder, loop, run = running.folder, running.loop, running.folder.round(number)
    folder.share(run)

    def recipe_with(prompts: Path | None) -> Recipe:
        running.remember(run.recipe)
        return round_recipe.write_recipe(
            run,
            round_recipe.round_recipe(
                running.recipe, run, number, student=student.model, judge=judge.model,
                earlier=[one for one, _ in earlier], prompts=prompts, attempt=attempt,
            ),
        )  # fmt: skip

    keys = tuple(key for _, key in earlier)
    own_prompts = loop.prompts == "gaps" and number > 0
    made_prompts = stage.new_prompts_file(run) if own_prompts else None
    after: str | None = student.key if isinstance(student.key, str) else None
    if own_prompts:
        recipe = recipe_with(None)
        inputs = Inputs(running.recipe, recipe, student.key, judge.key, keys, running.digests)
        label = Label.of(number, "prompts")
        after = do_stage(running, label, run, inputs, after, attempt, who)
    recipe = recipe_with(made_prompts)
    inputs = Inputs(running.recipe, recipe, student.key, judge.key, keys, running.digests)
    try:
        for name in ("sample", "judge"):
            after = do_stage(running, Label.of(number, name), run, inputs, after, attempt, who)
    except GateError as error:
        return student, Ruled(number, attempt, "judge", error.what)
    if recipe.critic is not None or recipe.filter is not None:
        after = do_stage(running, Label.of(number, "filter"), run, inputs, after, attempt, who)
    trained, stages = student, round_recipe.training_stages(running.recipe, number)
    for name in stages:
        if not _has_rows(run, earlier, name):
            return student, Ruled(
                number, attempt, "rows",
                f"no row is left for `{name}`; {run.root / 'kept_aside'} has them, each with why",
            )  # fmt: skip
    for name in stages:
        key = do_stage(running, Label.of(number, name), run, inputs, after, attempt, who)
        if name != "reward":
            after, trained = key, _made(running, run, name, student.model, key)
    do_stage(running, Label.of(number, "evaluate"), run, inputs, after, attempt, who)
    figures = Figures.from_dict(json.loads(figures_file(run).read_bytes()))
    return trained, figures


def _has_rows(run: RunFolder, earlier: list[tuple[RunFolder, Any]], name: str) -> bool:
    """Whether a training has anything to train on, of its round or of those that are kept."""
    stage = "sft" if name == "sft" else "pairs"
    folders = [one.manifests(stage) for one in (run, *(folder for folder, _ in earlier))]
    shards = [Manifest.read(file) for folder in folders for file in folder.glob("*.json")]
    return not shards or any(shard is None or shard.rows for shard in shards)


def _keep_inputs(running: Running) -> None:
    run = running.folder.run
    for file in (run.recipe, run.constitution):
        running.remember(file)
    recipe = running.recipe.model_dump(mode="json") | {"run": str(running.folder.root)}
    run.write_text(run.recipe, strict_yaml.dump(recipe))
    run.write_bytes(run.constitution, Path(running.recipe.constitution).read_bytes())


def _before(run: RunFolder) -> Figures | None:
    """The student before any round."""
    file = run.root / "before.json"
    return Figures.from_dict(json.loads(file.read_bytes())) if file.is_file() else None


def _still_rolled_back(running: Running, state: State) -> list[Ruled]:
    """Attempts that stay rolled back: those of rounds that were not restarted since."""
    done = {label.round for label in running.finished.labels()}
    return [one for one in state.rolled_back if one.round <= max(done, default=-1) + 1]


def _clear_rolled_back(folder: LoopFolder, state: State, number: int) -> None:
    """Move an attempt that was rolled back out of the way, whole; it is not finished then."""
    file = figures_file(folder.round(number))
    if not file.is_file():
        return
    attempt = Figures.from_dict(json.loads(file.read_bytes())).attempt
    if any(one.round == number and one.attempt == attempt for one in state.rolled_back):
        Finished(folder).forget_from(Label(number, 0))
        places = (folder.rolled_back(number, n) for n in range(attempt, 10_000))
        folder.round(number).root.rename(next(place for place in places if not place.exists()))
