"""The loop on the sandbox, where gold is known: a fixed teacher, a student that judges itself.

    python scripts/loop_sandbox.py [--out runs/loop] [--json FILE] [--only NAME]

fixed      three rounds, labelled by the teacher
self       three rounds, labelled by the student, which was taught to judge before the first
unwatched  the same, with the governor off
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from bench_rows import Row, note, row, show
from rich.console import Console

from rlaif.constitution import Constitution
from rlaif.engines.load import load_engine
from rlaif.evaluate.gate import balanced
from rlaif.evaluate.scorecard import measure as scorecard
from rlaif.label.method import Method
from rlaif.loop.figures import Figure, Figures
from rlaif.loop.rounds import run_loop
from rlaif.loop.state import State
from rlaif.recipe import Recipe
from rlaif.sandbox import measure
from rlaif.sandbox.comparisons import constitution_comparisons, write_gate
from rlaif.sandbox.quickstart import HERE, write_inputs
from rlaif.sandbox.seeds import write_instructions, write_seeds

Change = Callable[[dict[str, Any]], None]

_OTHERS = (99, 100, 101)
"""Seeds of comparisons that no setting was chosen by."""
OFF = {
    "max_length_growth": None, "max_one_bin": None, "not_better": False, "falling": False,
    "max_drift": None, "min_tail_coverage": None,
}  # fmt: skip


def fixed(recipe: dict[str, Any]) -> None:
    """Three rounds, each on a third of the prompts and on its own pairs alone: answers that the
    student no longer gives only blur what it says. Gently, since there are three. A round that is
    no better is no reason to stop: what is asked here is whether any round is worse."""
    recipe["prompts"] |= {"limit": 340, "shard_size": 170}
    recipe["train"]["dpo"] |= {"max_steps": 260, "learning_rate": 3e-4, "loss_weights": [1.0, 0.2]}
    recipe["loop"] |= {"rounds": 3, "data": "replace"}
    recipe["loop"]["stop"] |= {"not_better": False}


def self_rewarding(recipe: dict[str, Any]) -> None:
    """The student labels. It is taught 8,000 verdicts, once before the first round, gently, as more
    steps cost it what it knows, and again in every DPO. The answers of people are taught once, as
    these break what a round has learnt; later SFT teaches its picks alone. DPO sees each pair once:
    a good student brings few. A round that is no better ends it. The gate asks 1,200 comparisons,
    so that a small rise can be told."""
    fixed(recipe)
    folder, constitution = Path(recipe["run"]) / "inputs", Constitution.load(recipe["constitution"])
    write_seeds(folder / "seeds.jsonl", constitution, 2000)
    write_instructions(folder / "people.jsonl", 2000)
    write_gate(folder / "comparisons.jsonl", constitution, 1200)
    recipe["train"]["sft"] |= {
        "max_length": 200, "per_device_train_batch_size": 32, "num_train_epochs": 1
    }  # fmt: skip
    recipe["train"]["dpo"] |= {"max_length": 200, "max_steps": -1, "num_train_epochs": 1}
    recipe["gate"] |= {
        "data": str(folder / "comparisons.jsonl"), "min_accuracy": 0.8,
        "max_calibration_error": 0.15,
    }  # fmt: skip
    recipe["loop"]["stop"] |= {"not_better": True}
    recipe["loop"] |= {
        "judge": "student", "sft": "every",
        "seeds": {
            "instructions": str(folder / "people.jsonl"),
            "evaluations": str(folder / "seeds.jsonl"), "repeat": False, "evaluation_pairs": 8000,
        },
    }  # fmt: skip


def unwatched(recipe: dict[str, Any]) -> None:
    """As `self_rewarding`, with nothing that stops it."""
    self_rewarding(recipe)
    recipe["loop"]["stop"] = OFF


LOOPS: dict[str, Change] = {
    "fixed": fixed, "self": self_rewarding, "unwatched": unwatched,
}  # fmt: skip


def run(name: str, out: Path) -> State:
    """One of the loops, from wherever it was left."""
    return run_loop(write_inputs(out / name, change=LOOPS[name]), say=print)


def rows_of_fixed(state: State) -> list[Row]:
    """What is wanted of a fixed teacher."""
    if not state.rounds:
        return [row("fixed teacher: rounds", ">=", 3, 0)]
    golds = [value(f.metric) for f in (state.base, *state.rounds) if f is not None]
    fall = max((a - b for a, b in pairwise(golds)), default=0.0)
    return [
        row("fixed teacher: rounds", ">=", 3, len(state.rounds)),
        row("fixed teacher: gold, most that a round loses", "<=", 0.0, max(0.0, fall)),
        row("fixed teacher: gold at the end", ">=", 0.97, golds[-1]),
        row("fixed teacher: worst principle", ">=", 0.93,
            min(state.rounds[-1].metric_by_principle.values())),
        *(note(f"fixed teacher: gold after round {i}", g) for i, g in enumerate(golds[1:])),
        *(note(f"fixed teacher: worst principle after round {f.round}",
               min(f.metric_by_principle.values())) for f in state.rounds),
    ]  # fmt: skip


def rows_of_self(state: State, folder: Path) -> list[Row]:
    """What is wanted of a student that judges itself, after the last round: also where the governor
    stopped there. What it leaves in best/ stands beside it."""
    if not state.rounds:  # its judge did not pass the gate
        return [row("self-rewarding: rounds", ">=", 3, 0)]
    last, first = state.rounds[-1], value(state.rounds[0].judge_accuracy)
    elsewhere = judged_elsewhere(folder, len(state.rounds))
    return [
        row("self-rewarding: rounds", ">=", 3, len(state.rounds)),
        row("self-rewarding: judge accuracy, last over first", ">=", 0.0,
            value(last.student_accuracy) - first),
        row("self-rewarding: the same on comparisons that nothing was chosen by", ">=", 0.0,
            elsewhere[-1] - elsewhere[0]),
        row("self-rewarding: gold at the end", ">=", 0.93, value(last.metric)),
        row("self-rewarding: length over the world's own, off by", "<=", 0.20, length_off(last)),
        note("self-rewarding: best round", -1 if state.best is None else state.best.round),
        note("self-rewarding: stopped in round (-1: never)",
             -1 if state.stopped is None else state.stopped.round),
        *(note(f"self-rewarding: {what}, round {f.round}", figure)
          for f in state.rounds
          for what, figure in (
              ("gold", value(f.metric)),
              ("worst principle", min(f.metric_by_principle.values())),
              ("judge accuracy", value(f.judge_accuracy)),
              ("student's accuracy as a judge, after it", value(f.student_accuracy)),
          )),
        *(note(f"self-rewarding: judge accuracy on the others, {when}", right)
          for when, right in zip(
              ("before round 0", *(f"after round {f.round}" for f in state.rounds)), elsewhere,
              strict=True,
          )),
    ]  # fmt: skip


def judged_elsewhere(folder: Path, rounds: int) -> list[float]:
    """How often the first judge and each round's student are right on further comparisons.

    The loop's settings were chosen by its own figures, those of the gate among them.
    """
    recipe = Recipe.load(folder / "recipe.yaml")
    constitution, method = Constitution.load(recipe.constitution), Method.load(recipe.judge)
    rows = [c for seed in _OTHERS for c in constitution_comparisons(1200, constitution, seed)]
    assert recipe.gate is not None
    asked = balanced(rows, recipe.gate.data)
    models = ["seed/models/sft", *(f"rounds/{i:02d}/models/dpo" for i in range(rounds))]
    found = []
    for model in models:
        judge = recipe.teacher.model_copy(update={"model": str(folder / model / "final")})
        with closing(load_engine(judge)) as engine:
            card, _ = scorecard(
                asked, engine, constitution, method, way="platt", clip=recipe.judge.clip,
                min_decided=recipe.pick.min_decided,
            )  # fmt: skip
        found.append(card.accuracy.value)
    return found


def length_off(figures: Figures) -> float:
    """How far a round's mean length is off that of answers that keep every principle, as a share
    of that."""
    asked = [
        json.loads(line)["prompt"]
        for line in (HERE / "data" / "evaluate.jsonl").read_text("utf-8").splitlines()
    ]
    concierge = Constitution.load(HERE / "constitutions" / "concierge.yaml")
    return abs((figures.mean_tokens or 0.0) / measure.gold_lengths(asked, concierge) - 1)


def rows_of_governor(watched: State, unwatched_: State) -> list[Row]:
    """What the same loop leaves with the governor, and what it ends as without."""
    found: list[Row] = []
    for which, left in (
        ("governor on: best/", watched.best),
        ("governor off: the end", unwatched_.rounds[-1] if unwatched_.rounds else None),
    ):
        if left is not None:
            found += [
                note(f"{which}: gold", value(left.metric)),
                note(f"{which}: worst principle", min(left.metric_by_principle.values())),
                note(f"{which}: judge accuracy", value(left.student_accuracy)),
                note(f"{which}: length off by", length_off(left)),
            ]
    return found


def value(figure: Figure | None) -> float:
    """A figure's value; NaN where there is none."""
    return float("nan") if figure is None else figure.value


def rows(out: Path = Path("runs/loop"), only: str | None = None) -> list[Row]:
    """All rows, or those of one loop."""
    wanted = [only] if only else list(LOOPS)
    states = {name: run(name, out) for name in wanted}
    found: list[Row] = []
    if "fixed" in states:
        found += rows_of_fixed(states["fixed"])
    if "self" in states:
        found += rows_of_self(states["self"], out / "self")
    if {"self", "unwatched"} <= states.keys():
        found += rows_of_governor(states["self"], states["unwatched"])
    return found


def main(
    out: Path = Path("runs/loop"),
    only: str | None = None,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Run the loops, print the table, and write it as JSON."""
    found = rows(out, only)
    show(found, Console(width=110))
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
