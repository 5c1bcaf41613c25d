"""A recipe's stages in order: this file is the diagram of the whole flow.

    label()     sample()  (gate) → prompts → samples → (revised)
                judge()   (revised) → verdicts → picks
                keep()    picks → (critic) → (filters) → sft, pairs
    train()     sft → dpo, reward, each by `accelerate launch`
    evaluate()  (student, trained) → samples → verdicts → win rate

Each function takes a recipe and leaves its output in the run folder. Each can be started again at
any time, and does what is left to do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rlaif import strict_yaml
from rlaif.asked import (
    judge_identity,
    judged_verdicts,
    remember_judge,
    remember_yardstick,
    yardstick,
)
from rlaif.constitution import Constitution
from rlaif.engines.absent import AbsentEngine
from rlaif.engines.load import load_engine
from rlaif.engines.protocol import Engine, Sampling
from rlaif.errors import DataError, JournalError, RecipeError, TrainError
from rlaif.evaluate.winrate import WinRate, side_by_side, win_rate
from rlaif.journal import Stage
from rlaif.judge_check import Checked, check_judge
from rlaif.label.aggregate import with_weights
from rlaif.label.calibrate import Calibration
from rlaif.label.method import Method
from rlaif.label.revise import Revising
from rlaif.label.scores import refuse_pairwise_vetoes
from rlaif.label_counts import Labelled, count
from rlaif.recipe import Model, Recipe
from rlaif.records import Record
from rlaif.reviews import store_reviews
from rlaif.run_folder import RunFolder
from rlaif.stages import (
    Progress,
    Verdicts,
    judged_records,
    picked_stages,
    silent,
    store_picks,
    store_prompts,
    store_revisions,
    store_samples,
    store_verdicts,
)
from rlaif.tables import SAMPLES, records_from_table, records_to_table


def label(recipe: Recipe, progress: Progress = silent) -> Labelled:
    """Sample, judge and pick: from a recipe's prompts to ``RUN/data/sft`` and ``RUN/data/pairs``.

    Raises:
        RlaifError: whatever in the recipe, its files or its models cannot be used.
    """
    sample(recipe, progress)
    asked = judge(recipe, progress)
    return keep(recipe, progress, asked)


def sample(recipe: Recipe, progress: Progress = silent) -> None:
    """The prompts, and the student's responses to them; its revisions, where it makes them.

    Raises:
        RlaifError: as `label`.
    """
    run, constitution, method = _opened(recipe)
    with run.lock():
        _keep_inputs(run, recipe)
        # Before anything is sampled: a judge that falls short would make it worth nothing.
        _checked_judge(run, recipe, constitution, method)
        prompts = store_prompts(run, "prompts", recipe.prompts)
        with closing(load_engine(recipe.student, run.engines)) as student:
            sampling = Sampling(**recipe.sample.model_dump())
            samples = store_samples(
                run, "samples", prompts, student, sampling, recipe.seed, progress
            )
            revised(run, recipe, constitution, samples, student, "student", progress)


def judge(recipe: Recipe, progress: Progress = silent) -> tuple[str, ...]:
    """The teacher's verdicts on what is sampled, and what is picked by them.

    Returns:
        The ids of the principles that were put to it now.

    Raises:
        RlaifError: as `label`.
        JournalError: nothing is sampled yet.
    """
    run, constitution, method = _opened(recipe)
    with run.lock():
        checked = _checked_judge(run, recipe, constitution, method)
        calibration, constitution = _weighted(checked, constitution)
        judged = _finished(run, "samples")
        if recipe.revise is not None and recipe.revise.model == "student":
            judged = _finished(run, "revised")
        with closing(load_engine(recipe.teacher, run.engines)) as teacher:
            judged = revised(run, recipe, constitution, judged, teacher, "teacher", progress)
            verdicts = store_verdicts(
                run, "verdicts", judged, teacher, constitution.principles, method, progress
            )
            identity = dict(teacher.identity)
        remember_judge(run, identity)
        name = method.fingerprint(identity)
        store_picks(run, recipe, constitution, name, judged, verdicts, calibration)
    return tuple(p.id for p in constitution.principles if p.fingerprint in verdicts.asked)


def keep(recipe: Recipe, progress: Progress = silent, asked: tuple[str, ...] = ()) -> Labelled:
    """What the critic and the filters leave of the picks, where the recipe has them.

    Args:
        recipe: of a run that is judged.
        progress: is told of each finished shard.
        asked: for the counts: the principles that were just judged.

    Raises:
        RlaifError: as `label`.
        JournalError: nothing is judged yet.
    """
    run, constitution, method = _opened(recipe)
    with run.lock():
        identity = judge_identity(run)
        checked = None
        if recipe.gate is not None:
            checked = check_judge(run, recipe, constitution, AbsentEngine(identity), method)
        _, constitution = _weighted(checked, constitution)
        judged = judged_stage(run, recipe)
        verdicts = judged_verdicts(run, recipe)
        picked = picked_stages(run, recipe)
        sure = _reviewed(run, recipe, constitution, judged, verdicts, picked, checked, progress)
        picks = _filtered(run, recipe, sure, progress)
        first = [Stage(run, "prompts", SAMPLES), Stage(run, "samples", SAMPLES), judged]
        flow = [*first, *picked.values(), *sure.values(), *picks.values()]
        counts = count(flow, verdicts, picks, asked)
        run.log("labelled", **asdict(counts))
    return counts


def _opened(recipe: Recipe) -> tuple[RunFolder, Constitution, Method]:
    constitution = Constitution.load(recipe.constitution)
    refuse_pairwise_vetoes(constitution, recipe.judge.mode)
    return RunFolder(Path(recipe.run)), constitution, Method.load(recipe.judge)


def _weighted(
    checked: Checked | None, constitution: Constitution
) -> tuple[Calibration | None, Constitution]:
    """The judge's calibration, and the constitution with the weights that were fitted with it."""
    calibration = checked.calibration if checked else None
    if calibration is None:
        return None, constitution
    return calibration, with_weights(constitution, calibration.weights)


def _finished(run: RunFolder, name: str) -> Stage:
    stage = Stage(run, name, SAMPLES)
    if not stage.shards():
        raise JournalError("nothing is sampled yet", file=run.root, mend="rlaif label RECIPE")
    return stage


def judged_stage(run: RunFolder, recipe: Recipe) -> Stage:
    """What the run's judge reads: its samples, with revisions where the recipe makes them.

    Raises:
        JournalError: there is nothing yet.
    """
    return _finished(run, "samples" if recipe.revise is None else "revised")


def _checked_judge(
    run: RunFolder, recipe: Recipe, constitution: Constitution, method: Method
) -> Checked | None:
    """What a gate finds out about the judge; a judge that falls short stops the run."""
    if recipe.gate is None:
        return None
    with closing(load_engine(recipe.teacher, run.engines)) as teacher:
        return check_judge(run, recipe, constitution, teacher, method)


def _reviewed(
    run: RunFolder,
    recipe: Recipe,
    constitution: Constitution,
    samples: Stage,
    verdicts: Verdicts,
    picked: dict[str, Stage],
    checked: Checked | None,
    progress: Progress,
) -> dict[str, Stage]:
    """What the critic leaves of the picks, if the recipe has one; else the picks."""
    if recipe.critic is None or checked is None:
        return picked
    with closing(load_engine(recipe.critic.model, run.engines)) as critic:
        return store_reviews(
            run, recipe, constitution, samples, verdicts, picked, critic, checked, progress
        )


def _filtered(
    run: RunFolder, recipe: Recipe, picks: dict[str, Stage], progress: Progress
) -> dict[str, Stage]:
    """What the filters leave of the picks, if the recipe has them; else the picks."""
    if recipe.filter is None:
        return picks
    from rlaif.filtering import store_filtered  # it imports faiss, scikit-learn and more

    return store_filtered(run, recipe, picks, progress)


def filter_run(recipe: Recipe, progress: Progress = silent) -> Labelled:
    """Hold a labelled run's picks and pairs against the recipe's anchors, as it now says.

    Raises:
        RecipeError: the recipe has no filters.
        DataError: the run is not labelled, its anchors cannot be used, or nothing is left.
    """
    if recipe.filter is None:
        raise RecipeError("the recipe has no filters", key="filter", mend="add a `filter` section")
    run = RunFolder(Path(recipe.run))
    if not run.data("verdicts").is_dir():
        raise DataError("is not labelled yet", file=run.root, mend="rlaif label RECIPE")
    return label(recipe, progress)  # what is finished is not done again


def revised(
    run: RunFolder,
    recipe: Recipe,
    constitution: Constitution,
    samples: Stage,
    engine: Engine,
    who: Literal["student", "teacher"],
    progress: Progress = silent,
) -> Stage:
    """The samples with revisions, if it is this model that the recipe has revise; else as given."""
    if recipe.revise is None or recipe.revise.model != who:
        return samples
    method = Revising.load(recipe.revise, recipe.judge.templates)
    return store_revisions(
        run, samples, engine, constitution.principles, method, recipe.seed, progress
    )


def train_command(stage: str, recipe_file: Path, config_file: Path | None = None) -> list[str]:
    """What trains one stage in processes of its own."""
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    if config_file is not None:
        launch += ["--config_file", str(config_file)]
    return [*launch, "-m", "rlaif.train", stage, str(recipe_file)]


def train(
    stage: str, recipe_file: Path, config_file: Path | None = None, *, quiet: bool = False
) -> None:
    """Train one stage in a process of its own, by `accelerate launch`.

    Args:
        stage: sft, dpo or reward.
        recipe_file: the recipe.
        config_file: of `accelerate launch`; None takes its defaults.
        quiet: show what it prints only if it fails.

    Raises:
        TrainError: the stage did not end well; it has said why on stderr.
    """
    command = train_command(stage, recipe_file, config_file)
    where = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if quiet else {}
    done = subprocess.run(command, check=False, text=True, **where)  # type: ignore[call-overload]
    if done.returncode:
        sys.stderr.write(done.stdout or "")
        raise TrainError(f"{stage} ended with exit status {done.returncode}", file=recipe_file)


def evaluate(recipe: Recipe, stage: str | None = None, progress: Progress = silent) -> WinRate:
    """How often the teacher prefers the trained student to the one it came from.

    Both answer the recipe's evaluation prompts; the teacher compares the answers under each
    principle, in both orders where it sees two at once. The figures go to
    ``RUN/evaluate/<stage>.json`` too.

    Args:
        recipe: with an `evaluate.prompts` section.
        stage: the trained model: sft or dpo; None takes the last that the recipe trains.
        progress: is told of each finished shard.

    Raises:
        RlaifError: no such stage, no evaluation prompts, no trained model, or one that cannot be
            used.
    """
    run = RunFolder(Path(recipe.run))
    stage = stage or ("dpo" if recipe.train.dpo is not None else "sft")
    if stage not in ("sft", "dpo"):
        what = "is not what trains the student"
        raise RecipeError(what, key="--stage", value=stage, mend="use sft or dpo")
    constitution = Constitution.load(recipe.constitution)
    with run.lock():
        # This one first: if it is not there, that is told before anything is sampled.
        trained = evaluation_samples(run, recipe, stage, progress)
        base = evaluation_samples(run, recipe, "base", progress)
        compared = _store_side_by_side(run, stage, base, trained)
        with closing(load_engine(recipe.teacher, run.engines)) as teacher:
            verdicts = store_verdicts(
                run, f"evaluate/verdicts/{stage}", compared, teacher,
                constitution.principles, yardstick(recipe), progress,
            )  # fmt: skip
            remember_yardstick(run, stage, teacher.identity)
        records = [r for i in compared.shards() for r in judged_records(compared, verdicts, i)]
        result = win_rate(
            records, constitution, mode=recipe.evaluate.mode,
            clip=recipe.evaluate.clip, min_decided=recipe.pick.min_decided,
            resamples=recipe.evaluate.bootstrap, seed=recipe.seed,
        )  # fmt: skip
        path = run.root / "evaluate" / f"{stage}.json"
        run.write_text(path, json.dumps(asdict(result), indent=2) + "\n")
    return result


def evaluation_samples(
    run: RunFolder, recipe: Recipe, model: str, progress: Progress = silent
) -> Stage:
    """What a model answers to the recipe's evaluation prompts.

    Args:
        run: the run folder; the caller holds its lock.
        recipe: with an `evaluate.prompts` section.
        model: "base" for the student as it was, or the stage that trained it.
        progress: is told of each finished shard.

    Raises:
        RlaifError: no evaluation prompts, no trained model, or one that cannot be used.
    """
    settings = recipe.evaluate
    if settings.prompts is None:
        raise RecipeError(
            "nothing to evaluate on", key="evaluate.prompts",
            mend="name prompts that are not trained on",
        )  # fmt: skip
    prompts = store_prompts(run, "evaluate/prompts", settings.prompts)
    _refuse_trained_on(run, prompts)
    sampling = Sampling(settings.n, settings.temperature, recipe.sample.top_p, settings.max_tokens,
                        recipe.sample.stop)  # fmt: skip
    with closing(load_engine(trained_model(run, recipe, model), run.engines)) as engine:
        # A seed of its own: the answers that are measured are not those that were labelled.
        name = f"evaluate/samples/{model}"
        return store_samples(run, name, prompts, engine, sampling, recipe.seed + 1, progress)


def trained_model(run: RunFolder, recipe: Recipe, model: str) -> Model:
    """The student as it was ("base"), or as a stage has left it, as a section of a recipe.

    Raises:
        TrainError: the stage has not been trained.
    """
    if model == "base":
        return recipe.student
    folder = run.model(model) / "final"
    if not folder.is_dir():
        raise TrainError(
            "is not trained yet", file=folder, mend=f"run {model} first: python -m rlaif.train"
        )
    changes = {"model": str(folder), "revision": None, "adapter": None}
    return recipe.student.model_copy(update=changes)


def _refuse_trained_on(run: RunFolder, prompts: Stage) -> None:
    """A prompt that was labelled cannot measure what was learned from the labels."""
    labelled = Stage(run, "prompts", SAMPLES)
    ids = {i for shard in labelled.shards() for i in labelled.read(shard)["record_id"].to_pylist()}
    for shard in prompts.shards():
        for id_ in prompts.read(shard)["record_id"].to_pylist():
            if id_ in ids:
                raise DataError(
                    "is an evaluation prompt and is also labelled and trained on",
                    key="evaluate.prompts", value=id_, mend="take it out of one of them",
                )  # fmt: skip


def _store_side_by_side(run: RunFolder, stage: str, base: Stage, trained: Stage) -> Stage:
    compared = Stage(run, f"evaluate/compared/{stage}", SAMPLES)
    for shard in base.shards():
        depends = {"base": base.digest(shard), "trained": trained.digest(shard)}
        if not compared.done(shard, depends):
            pair = [records_from_table(s.read(shard)) for s in (base, trained)]
            compared.write(shard, depends, records_to_table(side_by_side(*pair)))
    compared.finish(len(base.shards()))
    return compared


def read_records(stage: Stage) -> list[Record]:
    """All records of a stage."""
    return [record for shard in stage.shards() for record in records_from_table(stage.read(shard))]


def _keep_inputs(run: RunFolder, recipe: Recipe) -> None:
    run.write_text(run.recipe, strict_yaml.dump(recipe.model_dump(mode="json")))
    run.write_bytes(run.constitution, Path(recipe.constitution).read_bytes())
