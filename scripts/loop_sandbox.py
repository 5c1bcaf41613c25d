"""The loop on the sandbox, where gold is known: a fixed teacher, a student that judges itself.

    python scripts/loop_sandbox.py [--out runs/loop] [--json FILE] [--only NAME]

fixed      three rounds, labelled by the teacher
self       three rounds, labelled by the student, which was taught to judge before the first
forgets    the same, but its SFT no longer repeats what it was taught: it forgets how to judge
unwatched  as forgets, with the governor off
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from bench_rows import Row, note, row, show
from rich.console import Console

from rlaif.constitution import Constitution
from rlaif.loop.figures import Figure
from rlaif.loop.rounds import run_loop
from rlaif.loop.state import State
from rlaif.sandbox import measure
from rlaif.sandbox.quickstart import HERE, write_inputs
from rlaif.sandbox.seeds import write_instructions, write_seeds

Change = Callable[[dict[str, Any]], None]

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
    """The student labels; what it was taught about judging is among the rows of every SFT. Its
    labels are less sure than a teacher's, and are followed a little faster."""
    fixed(recipe)
    folder = Path(recipe["run"]) / "inputs"
    write_seeds(folder / "seeds.jsonl", Constitution.load(recipe["constitution"]), 12_000)
    write_instructions(folder / "people.jsonl", 1000)
    recipe["train"]["sft"] |= {
        "num_train_epochs": 1, "per_device_train_batch_size": 24, "learning_rate": 1.5e-3,
        "max_length": 200,
    }  # fmt: skip
    recipe["train"]["dpo"] |= {"learning_rate": 4e-4}
    recipe["gate"] |= {"min_accuracy": 0.8, "max_calibration_error": 0.15}
    recipe["loop"] |= {
        "judge": "student", "sft": "every",
        "seeds": {
            "instructions": str(folder / "people.jsonl"),
            "evaluations": str(folder / "seeds.jsonl"), "repeat": True,
        },
    }  # fmt: skip


def forgets(recipe: dict[str, Any]) -> None:
    """As `self_rewarding`, but the seeds are taught once: later rounds teach their picks alone."""
    self_rewarding(recipe)
    recipe["loop"]["seeds"] |= {"repeat": False}


def unwatched(recipe: dict[str, Any]) -> None:
    """As `forgets`, with nothing that stops it."""
    forgets(recipe)
    recipe["gate"] |= {"on_failure": "warn"}
    recipe["loop"]["stop"] = OFF


LOOPS: dict[str, Change] = {
    "fixed": fixed, "self": self_rewarding, "forgets": forgets, "unwatched": unwatched,
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
    ]  # fmt: skip


def rows_of_self(state: State) -> list[Row]:
    """What is wanted of a student that judges itself."""
    if not state.rounds:  # its judge did not pass the gate
        return [row("self-rewarding: rounds", ">=", 3, 0)]
    right = [value(f.judge_accuracy) for f in state.rounds]
    right.append(value(state.rounds[-1].student_accuracy))
    asked = [
        json.loads(line)["prompt"]
        for line in (HERE / "data" / "evaluate.jsonl").read_text("utf-8").splitlines()
    ]
    concierge = Constitution.load(HERE / "constitutions" / "concierge.yaml")
    tokens = state.rounds[-1].mean_tokens or 0.0
    off = abs(tokens / measure.gold_lengths(asked, concierge) - 1)
    return [
        row("self-rewarding: rounds", ">=", 3, len(state.rounds)),
        row("self-rewarding: judge accuracy, last over first", ">=", 0.0, right[-1] - right[0]),
        row("self-rewarding: gold at the end", ">=", 0.93, value(state.rounds[-1].metric)),
        row("self-rewarding: length over the world's own, off by", "<=", 0.20, off),
        *(note(f"self-rewarding: judge accuracy in round {i}", r) for i, r in enumerate(right)),
    ]


def rows_of_governor(watched: State, unwatched_: State) -> list[Row]:
    """What the governor prevents, where the student forgets how to judge."""
    best = watched.best
    last = unwatched_.rounds[-1] if unwatched_.rounds else None
    return [
        note("forgets, governor on: stopped in round (-1: never)",
             -1 if watched.stopped is None else watched.stopped.round),
        note("forgets, governor on: gold of best/", value(best.metric if best else None)),
        note("forgets, governor off: gold at the end", value(last.metric if last else None)),
        note("forgets, governor off: judge accuracy at the end",
             value(last.student_accuracy if last else None)),
        note("forgets, governor off: mean tokens", (last.mean_tokens if last else None) or 0.0),
    ]  # fmt: skip


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
        found += rows_of_self(states["self"])
    if {"forgets", "unwatched"} <= states.keys():
        found += rows_of_governor(states["forgets"], states["unwatched"])
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
