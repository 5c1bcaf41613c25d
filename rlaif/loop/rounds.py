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

from pathlib import Path

from rlaif import strict_yaml
from rlaif.errors import GateError, RecipeError
from rlaif.loop import round_plan, round_recipe
from rlaif.loop.child import signals
from rlaif.loop.depends import Digests
from rlaif.loop.figures import Figures
from rlaif.loop.finished import TRAINING, Finished, Label
from rlaif.loop.governor import check
from rlaif.loop.leftovers import begin, end_descendants, remove_leftovers
from rlaif.loop.places import LoopFolder, figures_file
from rlaif.loop.round_plan import Earlier, Made, Planned, Who
from rlaif.loop.running import Running, Say, check_training, do_stage
from rlaif.loop.state import Ruled, State, put_best
from rlaif.manifest import Manifest
from rlaif.recipe import Loop, Recipe
from rlaif.run_folder import RunFolder


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
    round_plan.refuse_what_cannot_be_done(running)
    first = None if restart_from is None else _first(running, restart_from)
    with folder.run.lock(), signals():
        begin(folder)
        end_descendants(folder)
        remove_leftovers(folder, say)
        check_training(running)
        _begin(running, first)
        return _rounds(running)


def _first(running: Running, restart_from: str) -> Label:
    """The stage to do again, with all behind it."""
    first = Label.read(restart_from)
    if first.round >= running.loop.rounds:
        raise RecipeError(
            "no such round", key="--restart-from", value=restart_from,
            mend=f"the recipe's rounds are 0 to {running.loop.rounds - 1}",
        )  # fmt: skip
    return first


def _begin(running: Running, first: Label | None) -> None:
    """Tell that the loop runs, and forget what is to be done again; or refuse, and change nothing.

    A round that is done again from its first stage begins at its first attempt; one that is done
    again from a later stage on stays at the attempt that its first stages were done in.
    """
    state = State.read(running.folder)
    if first is not None:
        own = round_plan.has_own_prompts(running, first.round)
        whole = first <= Label.of(first.round, "prompts" if own else "sample")
        state.forget_after(first.round - 1 if whole else first.round)
    round_plan.refuse_changes(running, state, first)
    if first is not None or state.status != "running" or state.stopped is not None:
        state.go_on()
        state.write(running.folder)
    if first is not None:
        running.finished.forget_from(first)


def _rounds(running: Running) -> State:
    folder, loop = running.folder, running.loop
    before = State.read(folder)
    state = State(rolled_back=_still_rolled_back(running, before))
    _keep_inputs(running)
    student, teacher = _seeded(running), round_plan.teacher(running)
    earlier = round_plan.earlier_rows(running, student)
    for number in range(loop.rounds):
        while True:
            who = round_plan.who_labels(running, state.rounds)
            judge = student if who == "student" else teacher
            attempt = state.attempt(number)
            _clear_rolled_back(folder, state, number)
            made, figures = _round(running, number, attempt, student, judge, who, earlier)
            if isinstance(figures, Ruled):  # the judge falls short, or there is nothing to learn
                return _stop(running, state, figures)
            if number == 0:
                state.base = round_plan.read_figures(folder.round(0).root / "before.json")
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


def _seeded(running: Running) -> Made:
    """The student that the first round begins with."""
    planned, student = round_plan.seed(running)
    if planned is not None:
        _do(running, planned, running.folder.seed, 0, "teacher")
    return student


def _round(
    running: Running,
    number: int,
    attempt: int,
    student: Made,
    judge: Made,
    who: Who,
    earlier: Earlier,
) -> tuple[Made, Figures | Ruled]:
    """All stages of a round, from wherever they were left."""
    run, trained = running.folder.round(number), student
    running.folder.share(run)
    for planned in round_plan.stages(running, number, attempt, student, judge, earlier):
        name = planned.label.stage
        begins = name in TRAINING and trained is student
        if begins and (lacking := _without_rows(running, run, number, earlier)) is not None:
            where = run.root / "kept_aside"
            said = f"no row is left for `{lacking}`; {where} has them, each with why"
            return student, Ruled(number, attempt, "rows", said)
        try:
            _do(running, planned, run, attempt, who)
        except GateError as error:
            if name not in ("sample", "judge"):
                raise
            return student, Ruled(number, attempt, "judge", error.what)
        trained = planned.student or trained
    figures = round_plan.read_figures(figures_file(run))
    assert figures is not None
    return trained, figures


def _do(running: Running, planned: Planned, run: RunFolder, attempt: int, who: Who) -> None:
    round_recipe.write_recipe(run, planned.recipe)
    do_stage(running, planned.label, run, planned.made_of, attempt, who)


def _without_rows(running: Running, run: RunFolder, number: int, earlier: Earlier) -> str | None:
    """A training that has nothing to train on, of its round or of those that are kept."""
    for name in round_recipe.training_stages(running.recipe, number):
        data = "sft" if name == "sft" else "pairs"
        also = [*map(RunFolder, running.recipe.train.also), *(folder for folder, _ in earlier)]
        folders = [one.manifests(data) for one in (run, *also)]
        shards = [Manifest.read(file) for folder in folders for file in folder.glob("*.json")]
        if shards and not any(shard is None or shard.rows for shard in shards):
            return name
    return None


def _keep_inputs(running: Running) -> None:
    run = running.folder.run
    recipe = running.recipe.model_dump(mode="json") | {"run": str(running.folder.root)}
    run.write_text(run.recipe, strict_yaml.dump(recipe))
    run.write_bytes(run.constitution, Path(running.recipe.constitution).read_bytes())


def _still_rolled_back(running: Running, state: State) -> list[Ruled]:
    """Attempts that stay rolled back: of rounds that have begun, or that may begin now."""
    done = {label.round for label in running.finished.labels()}
    return [one for one in state.rolled_back if one.round <= max(done, default=-1) + 1]


def _clear_rolled_back(folder: LoopFolder, state: State, number: int) -> None:
    """Move an attempt that was rolled back out of the way, whole; it is not finished then."""
    figures = round_plan.read_figures(figures_file(folder.round(number)))
    if figures is not None and state.is_rolled_back(number, figures.attempt):
        Finished(folder).forget_from(Label(number, 0))
        places = (folder.rolled_back(number, n) for n in range(figures.attempt, 10_000))
        folder.round(number).root.rename(next(place for place in places if not place.exists()))
