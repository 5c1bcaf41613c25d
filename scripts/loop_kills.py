"""A loop that is killed at random moments and started again each time, beside one that is not.

    python scripts/loop_kills.py [--kills 50] [--seed 0] [--out FOLDER] [--json FILE]

The moments are drawn over the whole time that an undisturbed loop takes, so all stages have their
share; half of the kills take the loop's own process alone, half all of its processes. A small
recipe on the sandbox's models: two rounds, several shards a stage, checkpoints every few steps.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from bench_rows import Row, note, row, show, write
from loop_kills_run import Killable, Seen, moments_of
from rich.console import Console

from rlaif import strict_yaml
from rlaif.sandbox.quickstart import HERE

_LOOPS = 8
"""At most so many are killed, where one is quicker than the undisturbed one was."""
_OFF = {
    "max_length_growth": None, "max_one_bin": None, "not_better": False, "falling": False,
    "max_drift": None, "min_tail_coverage": None,
}  # fmt: skip
_BLOCK = {
    "max_steps": 24, "save_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
    "max_length": 160, "logging_strategy": "no", "report_to": "none", "disable_tqdm": True,
    "use_cpu": True,
}  # fmt: skip


def write_recipe(folder: Path) -> Path:
    """A recipe of two short rounds, whose run is ``folder/run``."""
    recipe: dict[str, Any] = {
        "run": str(folder / "run"),
        "constitution": str(HERE / "constitutions" / "concierge.yaml"),
        "student": {"model": str(HERE / "models" / "student")},
        "teacher": {"model": str(HERE / "models" / "teacher")},
        "prompts": {"path": str(HERE / "data" / "label.jsonl"), "limit": 24, "shard_size": 4},
        "sample": {"n": 6, "max_tokens": 60},
        "judge": {"clip": 0.2},
        "pick": {"pairs": "all"},
        "train": {"sft": _BLOCK, "dpo": _BLOCK},
        "evaluate": {
            "prompts": {"path": str(HERE / "data" / "evaluate.jsonl"), "limit": 8, "shard_size": 4},
            "max_tokens": 60, "bootstrap": 100,
        },
        "loop": {"rounds": 2, "stop": _OFF},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(strict_yaml.dump(recipe), encoding="utf-8")
    return file


@dataclass
class Compared:
    """Killed loops beside the undisturbed one.

    Attributes:
        labels, weights: whether each ended with the same bytes.
        seen: in all of them together.
        kills: that were made.
    """

    labels: bool = True
    weights: bool = True
    seen: Seen = field(default_factory=Seen)
    kills: int = 0


def compare(out: Path, kills: int, seed: int) -> Compared:
    """Run the loop undisturbed, and killed until all kills are made and it has finished."""
    calm = Killable(write_recipe(out / "undisturbed"))
    calm.run([])
    if not calm.finished:
        raise SystemExit(f"the undisturbed loop did not finish: {calm.printed}")
    dice = random.Random(f"kills {seed}")
    left = moments_of(calm.timeline, kills, dice)
    found = Compared(seen=calm.seen)
    for number in range(_LOOPS):
        killed = Killable(write_recipe(out / f"killed-{number}"))
        left = killed.run(left)
        found.kills += killed.kills
        found.labels &= killed.finished and killed.labels() == calm.labels()
        found.weights &= killed.finished and killed.weights() == calm.weights()
        found.seen.add(killed.seen)
        if not left or not killed.finished:
            break
        # It had finished before the last moments came: once more for these, a little earlier.
        left = [replace(one, after=0.8 * one.after) for one in left]
    return found


def rows(kills: int = 50, seed: int = 0, out: Path | None = None) -> list[Row]:
    """The table's rows; the folder is kept where one is named."""
    began = time.perf_counter()
    folder = out or Path(tempfile.mkdtemp(prefix="loop-kills-"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = compare(folder.absolute(), kills, seed)
    if out is None:
        shutil.rmtree(folder)
    seen, named = found.seen, f"killed {found.kills} times"
    return [
        row("kills made", ">=", kills, found.kills),
        row(f"{named}: the same labels, byte for byte", ">=", 1, float(found.labels)),
        row(f"{named}: the same weights, byte for byte", ">=", 1, float(found.weights)),
        row("most times that a finished shard, or a step before the last checkpoint, was done "
            "again", "<=", 0, seen.done_again),
        row("largest memory of the loop's own process, MiB", "<=", 500, seen.largest_mib),
        row("processes left 10 s after a kill", "<=", 0, seen.processes_left),
        row("segments left in shared memory after the next start", "<=", 0, seen.segments_left),
        note("longest until no process was left after a kill, s", seen.longest_end),
        note("segments that kills left, before the next start", seen.segments_found),
        note("stages in which a kill fell", len(seen.stages)),
        note("seconds, all in all", time.perf_counter() - began),
    ]  # fmt: skip


def main(
    kills: Annotated[int, typer.Option(min=1)] = 50,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="keep the runs here")] = None,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Kill a loop, print the table, and write it as JSON."""
    found = rows(kills, seed, out)
    show(found, Console(width=120))
    if json_file is not None:
        write(found, json_file)


if __name__ == "__main__":
    typer.run(main)
