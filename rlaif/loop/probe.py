"""The probe behind an estimate: round 0 on a few prompts and a few steps, in a scratch folder.

    recipe → probe_draw → RUN/estimate/ (a loop's folder) → the loop's own stages → Probe

Each stage runs as the loop runs it, in a process of its own, by the recipe's own settings: only the
number of prompts and of training steps is another. What it took is read from the books and the logs
that it left; scale.py makes the whole loop of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif.errors import BudgetError, DataError, GateError, TrainError
from rlaif.loop import round_recipe, stage
from rlaif.loop.child import run_child
from rlaif.loop.places import LoopFolder
from rlaif.loop.probe_recipe import GAP_CALLS, gaps_recipe, probe_recipe
from rlaif.loop.probe_rows import Rows, labels, repeated, rows_of
from rlaif.loop.spending import read_cost, times, total
from rlaif.recipe import Model, Recipe
from rlaif.run_folder import RunFolder
from rlaif.train.plan import JUDGEMENTS

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Trained:
    """A short training.

    Attributes:
        lines: of the books.
        given: rows that it was given, by number of the steps' rows and epochs as often.
        steps: that it took.
        pace: as rlaif/train/pace.py tells it.
        rows: picks or pairs that the probe's prompts have brought it, after the recipe's choice
            among pairs and before they were repeated.
    """

    lines: Lines
    given: int
    steps: int
    pace: Mapping[str, Any]
    rows: int = 0


@dataclass(slots=True)
class Probe:
    """What the probe has found.

    Attributes:
        prompts, evaluated: that it asked.
        shard: prompts in each of its shards but the last.
        counts: as probe_draw.py has counted the recipe's sources.
        lines: of the books, by stage.
        trained: by stage; "seed" among them.
        labels: what labelling made of the prompts.
        judgements: pairs of verdicts that every DPO is trained on as well.
        filter_again: seconds of the filters' shards: at first, and again with all texts embedded.
        gaps: as `rlaif topics` told of a few questions, with what they took ("start", "each");
            None where the recipe fills no gaps.
    """

    prompts: int
    evaluated: int
    shard: int
    counts: Mapping[str, Any]
    lines: dict[str, Lines] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)
    labels: Rows | None = None
    judgements: int = 0
    filter_again: tuple[float, float] = (0.0, 0.0)
    gaps: Mapping[str, Any] | None = None


def probe(
    recipe_file: Path, recipe: Recipe, scratch: Path, prompts: int, say: Callable[[str], None]
) -> Probe:
    """Run the stages of a round on a few prompts.

    Args:
        recipe_file, recipe: with a `loop` section.
        scratch: a folder; what is in it is removed.
        prompts: how many to ask.
        say: is told what happens.

    Raises:
        RlaifError: a stage failed as it would in the loop; its words are in ``scratch/said``.
        DataError: the prompts have brought nothing to train on.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    folder = LoopFolder(scratch)
    folder.run.create()
    LoopFolder(scratch.parent).share(folder.run, ["engines"])
    run = _Run(folder, say)
    run.child(["-m", "rlaif.loop.check_training", str(recipe_file)], "check")
    draw = ["-m", "rlaif.loop.probe_draw", str(recipe_file), str(scratch), str(prompts)]
    run.child(draw, "draw")
    counts = json.loads((scratch / "counts.json").read_bytes())
    asked, evaluated = (_lines_of(scratch / f"{n}.jsonl") for n in ("prompts", "evaluate"))
    shard = -(-asked // 2)
    found = Probe(asked, evaluated, shard, counts)
    short = probe_recipe(recipe, scratch, asked, evaluated)
    round_recipe.write_recipe(folder.run, short.model_dump(mode="json"))
    _label(run, short, found)
    _train(run, short, found)
    run.stage("evaluate", 0, found)
    if recipe.loop is not None and recipe.loop.prompts == "gaps":
        _fill_gaps(run, recipe, found)
    return found


@dataclass(slots=True)
class _Run:
    """The probe's folder, and the processes that work in it."""

    folder: LoopFolder
    say: Callable[[str], None]
    read: int = 0

    def stage(self, name: str, number: int, found: Probe) -> None:
        """Run a stage, and keep what it took."""
        self.say(f"probe: {name}")
        arguments = ["-m", "rlaif.loop.stage", name, str(self.folder.root), "--round", str(number)]
        self.child(arguments, name)
        lines = read_cost(self.folder.cost)
        found.lines[name], self.read = lines[self.read :], len(lines)

    def child(self, arguments: Sequence[str], name: str) -> None:
        said = self.folder.said(name)
        ended = run_child(arguments, said)
        if not ended.status:
            return
        told = [line for line in ended.said.splitlines() if line.startswith("rlaif: ")]
        what = told[-1].removeprefix("rlaif: ") if told else ended.said.rpartition("\n")[2]
        if ended.status == stage.REFUSED:
            raise GateError(what)
        if ended.status == stage.PAUSED:
            raise BudgetError(what)
        raise TrainError(f"the probe's {name} failed: {what}", file=said)


def _label(run: _Run, short: Recipe, found: Probe) -> None:
    """The seed, where there is one; sample, judge and filter."""
    folder, loop = run.folder, short.loop
    assert loop is not None
    if loop.seeds is not None:
        made = round_recipe.seed_recipe(short, folder.seed)
        round_recipe.write_recipe(folder.seed, made)
        run.stage("seed", -1, found)
        trained = _trained(folder.seed, "sft", found.lines["seed"])
        found.trained["seed"] = trained
        found.judgements = rows_of(folder.judgements, JUDGEMENTS)
    _write_round(folder, short)
    run.stage("sample", 0, found)
    run.stage("judge", 0, found)
    round_ = folder.round(0)
    if short.critic is not None or short.filter is not None:
        run.stage("filter", 0, found)
    if short.filter is not None:
        first = _seconds_of_shards(round_)
        for name in ("sft", "pairs"):
            shutil.rmtree(round_.manifests(name))
        again = Probe(found.prompts, found.evaluated, found.shard, found.counts)
        run.stage("filter", 0, again)
        found.filter_again = (first, _seconds_of_shards(round_) - first)
    found.labels = labels(round_, short)


def _write_round(folder: LoopFolder, short: Recipe, more: Sequence[RunFolder] = ()) -> Recipe:
    loop = short.loop
    assert loop is not None
    judge: Model = short.student if loop.judge == "student" else short.teacher
    run = folder.round(0)
    folder.share(run, ["engines"])
    made = round_recipe.round_recipe(
        short, run, 0, student=short.student, judge=judge, earlier=more
    )
    return round_recipe.write_recipe(run, made)


def _train(run: _Run, short: Recipe, found: Probe) -> None:
    """A few steps of each training, on as many rows as fill them."""
    folder, rows = run.folder, found.labels
    assert rows is not None
    stages = round_recipe.training_stages(short, 0)
    more = RunFolder(folder.root / "more").create()
    if stages:
        repeated(folder.round(0), more, short, rows)
        _write_round(folder, short, [more])
    for name in stages:
        if not rows.of(name):
            raise DataError(
                f"{found.prompts} prompts have brought nothing to train {name} on",
                file=folder.root, mend="take more prompts (--prompts), or a larger judge",
            )  # fmt: skip
        run.stage(name, 0, found)
        found.trained[name] = _trained(folder.round(0), name, found.lines[name], rows.of(name))


def _trained(run: RunFolder, name: str, lines: Lines, rows: int = 0) -> Trained:
    events = [json.loads(line) for line in run.log_file.read_text("utf-8").splitlines()]
    told = [e for e in events if e["event"] == "trained" and e["stage"] == f"models/{name}"][-1]
    counts = told["rows"]
    given = counts["trained_on"] + counts["held_out"] + (counts["too_long"] or 0)
    return Trained(lines, given, told["steps"], told["pace"], rows)


def _fill_gaps(run: _Run, recipe: Recipe, found: Probe) -> None:
    """The map of all prompts, and a few questions for its gaps.

    Three times: the second and the third embed nothing that is new, and differ by questions alone.
    """
    spent = []
    for calls in (1, 1, 1 + GAP_CALLS):
        asked = gaps_recipe(recipe, run.folder.root, calls)
        made = _write_round(run.folder, asked)
        round_recipe.write_recipe(run.folder.run, asked.model_dump(mode="json"))
        run.stage("prompts", 0, found)
        told = json.loads((Path(made.run) / "topics" / "topics.json").read_bytes())
        # What is kept is not asked again, and costs nothing.
        shutil.rmtree(RunFolder(Path(made.run)).data("gaps"), ignore_errors=True)
        spent.append((total(map(dict, found.lines.pop("prompts"))), told["calls"]))
    (first, once), (few, least), (many, most) = spent
    each = times(many - few, 1 / max(1, most - least))
    found.gaps = told | {"start": first - times(each, once), "each": each}


def _seconds_of_shards(run: RunFolder) -> float:
    """Of all shards that the filters have made."""
    events = [json.loads(line) for line in run.log_file.read_text("utf-8").splitlines()]
    made = (e for e in events if e["event"] == "shard" and e["stage"] in ("sft", "pairs"))
    return sum(float(e["seconds"]) for e in made)


def _lines_of(file: Path) -> int:
    return len(file.read_bytes().splitlines()) if file.is_file() else 0
