"""One loop in a process of its own, killed at given moments, and all that is seen of it meanwhile.

moments → Killable.run: start, wait for a stage, kill, look, start again … → Seen
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from rlaif.loop.leftovers import SHARED, VARIABLE
from rlaif.train.checkpoints import checkpoint_fault

_LOOK_SECONDS = 10.0
"""After a kill: what is left then is counted."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill.

    Attributes:
        stage: its label; "" is the time before the first.
        after: seconds from the stage's start.
        whole: all processes, or the loop's own alone.
    """

    stage: str
    after: float
    whole: bool


def moments_of(
    timeline: Sequence[tuple[str, float, float]], kills: int, dice: random.Random
) -> list[Moment]:
    """Moments drawn evenly over the time that an undisturbed loop took, in order.

    Args:
        timeline: its stages, each with its start and end.
        kills: how many.
        dice: draws them.
    """
    times = sorted(dice.uniform(0, timeline[-1][2]) for _ in range(kills))
    whole = [i % 2 == 0 for i in range(kills)]
    dice.shuffle(whole)
    found = []
    for moment, every in zip(times, whole, strict=True):
        stage, start, _ = next(one for one in timeline if moment <= one[2])
        found.append(Moment(stage, moment - start, every))
    return found


@dataclass
class Seen:
    """What was seen of a loop; `add` keeps the worst of two."""

    done_again: int = 0
    largest_mib: float = 0.0
    processes_left: int = 0
    segments_found: int = 0
    segments_left: int = 0
    longest_end: float = 0.0
    stages: set[str] = field(default_factory=set)

    def add(self, other: Seen) -> None:
        """Take in what was seen of another loop."""
        for name in ("done_again", "largest_mib", "processes_left", "segments_left", "longest_end"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        self.segments_found += other.segments_found
        self.stages |= other.stages


class Killable:
    """A recipe's loop, to be run once.

    Attributes:
        timeline: of the last start: each stage with its start and end, in seconds.
        finished: whether it ended well.
        printed: what the last start printed.
        kills: that were made.
    """

    def __init__(self, recipe: Path) -> None:
        self.recipe, self.folder = recipe, recipe.parent / "run"
        self.timeline: list[tuple[str, float, float]] = []
        self.finished, self.kills, self.seen, self.printed = False, 0, Seen(), ""
        self._starts: list[tuple[float, dict[tuple[str, str], int]]] = []
        self._shared = _segments()

    def run(self, moments: Sequence[Moment]) -> list[Moment]:
        """Start it, kill it at each moment in turn, and let the last start come to its end.

        Returns:
            The moments that did not come, since it had ended before.
        """
        left = list(moments)
        while True:
            came = self._start(left[0] if left else None)
            if not came:
                break
            left.pop(0)
        self.seen.done_again = self._done_again()
        return left

    def _start(self, moment: Moment | None) -> bool:
        """One start; whether it was killed."""
        before = _segments() - self._shared
        self._starts.append((time.time(), self._checkpoints()))
        command = [sys.executable, "-m", "rlaif.cli", "loop", str(self.recipe)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        watcher = _Watcher(process)
        began, killed = time.monotonic(), False
        while process.poll() is None:
            if moment is not None and watcher.is_at(moment, time.monotonic()):
                killed = self._kill(process, moment, watcher)
            time.sleep(0.02)
        watcher.join()
        self.printed = watcher.printed
        self.timeline = watcher.timeline(time.monotonic() - began)
        self.seen.largest_mib = max(self.seen.largest_mib, watcher.largest / 2**20)
        self.finished = process.returncode == 0
        if watcher.stages:  # it came so far as to have cleared up
            stale = before & _segments()
            self.seen.segments_left = max(self.seen.segments_left, len(stale - _used()))
        return killed

    def _kill(self, process: subprocess.Popen[str], moment: Moment, watcher: _Watcher) -> bool:
        how = "all of it" if moment.whole else "the loop alone"
        print(f"  kill {self.kills + 1}: {how}, in {watcher.now()}", file=sys.stderr, flush=True)
        self.seen.stages.add(watcher.now())
        below = psutil.Process(process.pid).children(recursive=True) if moment.whole else []
        process.kill()
        for one in below:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        at = time.monotonic()
        while (left := _of_loop(self.folder)) and time.monotonic() < at + _LOOK_SECONDS:
            time.sleep(0.05)
        self.seen.longest_end = max(self.seen.longest_end, time.monotonic() - at)
        self.seen.processes_left = max(self.seen.processes_left, left)
        self.seen.segments_found += len(_segments() - self._shared - _used())
        self.kills += 1
        return True

    def labels(self) -> dict[str, bytes]:
        """All shards of all rounds, by their place."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.glob("rounds/*/data/**/*.parquet"))
        }

    def weights(self) -> dict[str, str]:
        """The digests of all final weights."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.glob("rounds/*/models/*/final/*.safetensors"))
        }

    def _checkpoints(self) -> dict[tuple[str, str], int]:
        """The newest whole checkpoint of each training."""
        found: dict[tuple[str, str], int] = {}
        for path in self.folder.glob("rounds/*/models/*/checkpoint-*"):
            key = path.parts[-4], f"models/{path.parts[-2]}"
            if checkpoint_fault(path, 1) is None:
                found[key] = max(found.get(key, 0), int(path.name.rpartition("-")[2]))
        return found

    def _done_again(self) -> int:
        """The most times that one and the same finished piece of work was done again."""
        pieces: Counter[tuple[Any, ...]] = Counter()
        for name, event in self._events():
            if event["event"] == "shard":
                pieces[name, event["stage"], event["shard"]] += 1
            elif event["event"] == "trained":
                pieces[name, event["stage"]] += 1
        again = max(pieces.values(), default=1) - 1
        return max(again, sum(1 for name, e in self._events() if self._went_back(name, e)))

    def _went_back(self, name: str, event: Mapping[str, Any]) -> bool:
        """Whether a training began before the newest whole checkpoint that there was."""
        if event["event"] != "train":
            return False
        at = datetime.fromisoformat(event["time"]).timestamp()
        newest = [there for start, there in self._starts if start <= at][-1]
        resumed = int((event["resumed_from"] or "-0").rpartition("-")[2])
        return resumed < newest.get((name, event["stage"]), 0)

    def _events(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for file in sorted(self.folder.glob("rounds/*/log.jsonl")):
            for line in file.read_text("utf-8").splitlines():
                with suppress(ValueError):  # a kill can cut the last one off
                    yield file.parent.name, json.loads(line)


class _Watcher:
    """Reads what a loop prints, and looks at its memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.largest, self.printed = 0, ""
        self.stages: list[tuple[str, float]] = []
        self._began, self._process = time.monotonic(), process
        self._threads = [threading.Thread(target=one) for one in (self._read, self._look)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.printed += line
            if line.endswith(": started\n"):
                self.stages.append((line.partition(":")[0], time.monotonic()))

    def _look(self) -> None:
        with suppress(psutil.Error):
            seen = psutil.Process(self._process.pid)
            while self._process.poll() is None:
                self.largest = max(self.largest, seen.memory_info().rss)
                time.sleep(0.1)

    def join(self) -> None:
        """Wait until all is read."""
        for thread in self._threads:
            thread.join()

    def now(self) -> str:
        """The stage that is at work."""
        return self.stages[-1][0] if self.stages else "the check"

    def is_at(self, moment: Moment, now: float) -> bool:
        """Whether the moment has come: so long after its stage's start, or after a later one's."""
        if not moment.stage:
            return now >= self._began + moment.after
        # Labels sort as their stages run: the stages of a round are few, and known by their place.
        begun = [at for label, at in self.stages if _order(label) >= _order(moment.stage)]
        return bool(begun) and now >= begun[0] + moment.after

    def timeline(self, end: float) -> list[tuple[str, float, float]]:
        """Each stage with its start and end, in seconds; the time before the first is ""."""
        starts = [("", 0.0), *((label, at - self._began) for label, at in self.stages)]
        ends = [start for _, start in starts[1:]] + [end]
        return [(label, start, until) for (label, start), until in zip(starts, ends, strict=True)]


def _order(label: str) -> tuple[int, int]:
    from rlaif.loop.finished import Label

    read = Label.read(label)
    return read.round, read.place


def _of_loop(folder: Path) -> int:
    """How many processes of a loop are alive."""
    count = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            alive = process.status() != psutil.STATUS_ZOMBIE
            count += alive and process.environ().get(VARIABLE) == str(folder)
    return count


def _segments() -> set[str]:
    return {str(path) for path in SHARED.iterdir()} if SHARED.is_dir() else set()


def _used() -> set[str]:
    from rlaif.loop.leftovers import _in_use

    return set(_in_use())
