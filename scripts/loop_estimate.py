"""How near `rlaif estimate` comes to what a loop really takes: two rounds of the sandbox.

python scripts/loop_estimate.py [--small] [--json FILE]

The estimate is made first, in a folder of its own; then the loop runs to its end, and each stage's
real figures stand beside the foreseen ones. A stage is that of both rounds together; how far the
single ones of either round lie is told as well. On a machine that is busy with other things, now
more and now less, seconds say as much about those.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from bench_rows import Row, note, row, show, write
from rich.console import Console

from rlaif import strict_yaml
from rlaif.loop.estimate_report import Beside, beside, print_beside
from rlaif.loop.spending import Spent
from rlaif.recipe import Recipe, Stop
from rlaif.sandbox.quickstart import HERE

_PROMPTS = 320


def sandbox_recipe(folder: Path, small: bool) -> Path:
    """The sandbox's recipe as two rounds, on fewer prompts and steps."""
    given = Recipe.load(HERE / "recipe.yaml").model_dump(mode="json")
    prompts = 96 if small else _PROMPTS
    given["run"] = str(folder / "run")
    given["prompts"] |= {"limit": prompts, "shard_size": prompts // 4}
    given["evaluate"]["prompts"]["limit"] = prompts // 4
    for stage in ("dpo", "reward"):
        if given["train"][stage] is not None:
            given["train"][stage]["max_steps"] = prompts // 4
    given["loop"] = (given["loop"] or {}) | {
        "rounds": 2,
        "launch": str(HERE / "two-cpu.yaml"),
        "stop": dict.fromkeys(Stop.model_fields) | {"not_better": False, "falling": False},
    }
    file = folder / "recipe.yaml"
    file.write_text(strict_yaml.dump(given), "utf-8")
    return file


def rows(small: bool = False) -> list[Row]:
    """All rows of this file."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = sandbox_recipe(Path(folder), small)
        for command in (["estimate"], ["loop"]):
            _rlaif(*command, str(recipe))
        run = Path(Recipe.load(recipe).run)
        print_beside(run, Console(stderr=True, width=110))
        every = beside(run)
    stages = _together(every)
    name = "estimate of a sandbox loop"
    return [
        row(f"{name}: tokens of a stage, worst error", "<=", 0.25, _worst(stages, "tokens")),
        row(f"{name}: seconds of a stage, worst error", "<=", 0.50, _worst(stages, "seconds")),
        note(f"{name}: tokens, all stages together", _off(_sum(stages), "tokens")),
        note(f"{name}: seconds, all stages together", _off(_sum(stages), "seconds")),
        note(f"{name}: tokens of a stage in one round, worst error", _worst(every, "tokens")),
        note(f"{name}: seconds of a stage in one round, worst error", _worst(every, "seconds")),
    ]


def _rlaif(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlaif.cli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        stdout=sys.stderr, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"rlaif {arguments[0]} ended with exit status {done.returncode}")


def _together(given: Iterable[Beside]) -> list[Beside]:
    """Each stage of all rounds as one."""
    found: dict[str, Beside] = {}
    for one in given:
        before = found.get(one.stage, Beside(0, one.stage, Spent(), Spent()))
        found[one.stage] = _added(before, one)
    return list(found.values())


def _added(one: Beside, other: Beside) -> Beside:
    nothing = Spent()
    return Beside(
        0,
        other.stage,
        (one.foreseen or nothing) + (other.foreseen or nothing),
        (one.real or nothing) + (other.real or nothing),
    )


def _sum(given: Iterable[Beside]) -> Beside:
    found = Beside(0, "", Spent(), Spent())
    for one in given:
        found = _added(found, one)
    return found


def _worst(given: Iterable[Beside], what: str) -> float:
    return max(_off(one, what) for one in given)


def _off(one: Beside, what: str) -> float:
    """How far the foreseen lies from the real, as a share of the real."""
    foreseen, real = (_figure(spent, what) for spent in (one.foreseen, one.real))
    if not real:
        return 0.0 if not foreseen else float("inf")
    return abs(foreseen - real) / real


def _figure(spent: Any, what: str) -> float:
    return 0.0 if spent is None else float(getattr(spent, what))


def main(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    small: Annotated[bool, typer.Option(help="fewer prompts: a look, not a result")] = False,
) -> None:
    """Measure, print, and write the rows as JSON."""
    found = rows(small)
    show(found, Console(width=130))
    if json_file is not None:
        write(found, json_file)


if __name__ == "__main__":
    typer.run(main)
