"""A small job on the journal, and ways to die in the middle of it.

Run as a script, since what is tested is a real SIGKILL: the script forks a child for each attempt,
so that imports are paid for once. Each run lies in a folder of its own, and what `make` was called
for in a file beside it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset

from rlaif.journal import Stage, run_stage
from rlaif.records import Drop
from rlaif.run_folder import RunFolder

_TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
ROWS = pa.schema([pa.field("text", pa.string(), nullable=False)])
pa.table({"text": ["x"]}, schema=ROWS)  # what pyarrow imports late is imported before any fork
NEW = {"shards": 2, "setting": "new"}


def job(root: Path, shards: int, setting: str) -> None:
    """Two stages, the second made of the first; odd shards drop a row."""
    run = RunFolder(root)
    first, second = Stage(run, "first", ROWS), Stage(run, "second/nested", ROWS)

    def make_first(shard: int) -> tuple[pa.Table, list[Drop]]:
        note(root, "first", shard)
        drops = [Drop(f"row {shard}", "first", "odd", setting)] if shard % 2 else []
        return pa.table({"text": [f"{setting} {shard} {i}" for i in range(5)]}, schema=ROWS), drops

    def make_second(shard: int) -> tuple[pa.Table, list[Drop]]:
        note(root, "second", shard)
        texts = [t.upper() for t in first.read(shard)["text"].to_pylist()]
        return pa.table({"text": texts}, schema=ROWS), []

    with run.lock():
        run_stage(first, [(i, {"setting": setting}) for i in range(shards)], make_first)
        jobs = [(i, {"first": first.digest(i)}) for i in range(shards)]
        run_stage(second, jobs, make_second)


def note(root: Path, stage: str, shard: int) -> None:
    with root.with_suffix(".made").open("a") as file:
        file.write(f"{stage} {shard}\n")


def tree(root: Path) -> dict[str, bytes]:
    """Every file of a run but those that tell of times and processes."""
    files = (p for p in root.rglob("*") if p.is_file())
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in files
        if p.name not in ("log.jsonl", "lock")
    }


def attempt(body: Callable[[], None], kill_after: float | None = None) -> bool:
    """Run `body` in a child; whether it came to its end before it was killed."""
    child = os.fork()
    if child == 0:
        body()
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("an attempt failed by itself")
    return os.WIFEXITED(status)


def die_at(step: int, root: Path, body: Callable[[], None]) -> Callable[[], None]:
    """`body`, killed just before the step-th time that it touches a name under `root`."""

    def dying() -> None:
        left = [step]

        def hook(event: str, args: tuple[object, ...]) -> None:
            if event in _TOUCHES and str(args[0]).startswith(str(root)):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        body()

    return dying


def kill_at_every_step(base: Path, start: dict[str, object] | None, end: dict[str, object]) -> None:
    """A run that goes from `start` (None: from nothing) to `end`, once for each step of it."""
    if start:
        attempt(lambda: job(base / "start", **start))
    step, ended = 0, False
    while not ended:
        root = base / f"{step:04d}"
        if start:
            shutil.copytree(base / "start", root)
        ended = attempt(die_at(step, root, lambda root=root: job(root, **end)))
        attempt(lambda root=root: job(root, **end))
        step += 1


def kill_at_random(base: Path, runs: int) -> None:
    """A run killed one to four times, at any moment; `runs` times."""
    began = time.perf_counter()
    attempt(lambda: job(base / "undisturbed", **NEW))
    longest = time.perf_counter() - began
    for seed in range(runs):
        dice, root = random.Random(seed), base / f"{seed:04d}"
        for _ in range(dice.randint(1, 4)):
            attempt(lambda root=root: job(root, **NEW), kill_after=dice.uniform(0, longest))
        attempt(lambda root=root: job(root, **NEW))


if __name__ == "__main__":
    mode, base, *rest = sys.argv[1], Path(sys.argv[2]), *map(json.loads, sys.argv[3:])
    {"every-step": kill_at_every_step, "random": kill_at_random}[mode](base, *rest)
