"""A loop's state on disk: RUN/loop.json, and RUN/best/.

Everything in it follows from the rounds' own folders, so that it can be written at any time.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlaif.loop.figures import Figures
from rlaif.loop.governor import best
from rlaif.loop.places import LoopFolder
from rlaif.run_folder import os_errors, sync_folder

Status = Literal["running", "finished", "stopped", "paused"]
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Ruled:
    """What the governor said of a round.

    Attributes:
        round, attempt: which.
        rule, reason: why it does not pass.
    """

    round: int
    attempt: int
    rule: str
    reason: str


@dataclass(slots=True)
class State:
    """Where a loop is.

    Attributes:
        status: whether it runs, has done all its rounds, was stopped, or waits for more budget.
        base: the student before any round.
        rounds: that have passed, in order.
        stopped: why it ended before its last round.
        rolled_back: attempts that failed their checks and were tried again.
    """

    status: Status = "running"
    base: Figures | None = None
    rounds: list[Figures] = field(default_factory=list)
    stopped: Ruled | None = None
    rolled_back: list[Ruled] = field(default_factory=list)

    @classmethod
    def read(cls, folder: LoopFolder) -> State:
        """The state as it was left; a new one where there is none."""
        try:
            data = json.loads(folder.state.read_bytes())
        except (OSError, ValueError):
            return cls()
        return cls(
            status=data["status"],
            base=None if data["base"] is None else Figures.from_dict(data["base"]),
            rounds=[Figures.from_dict(one) for one in data["rounds"]],
            stopped=None if data["stopped"] is None else Ruled(**data["stopped"]),
            rolled_back=[Ruled(**one) for one in data["rolled_back"]],
        )

    @property
    def best(self) -> Figures | None:
        """The best round; a round that was stopped at is none of them."""
        stopped = self.stopped.round if self.stopped else None
        return best([one for one in self.rounds if one.round != stopped])

    def attempt(self, number: int) -> int:
        """How often a round was rolled back."""
        return sum(one.round == number for one in self.rolled_back)

    def is_rolled_back(self, number: int, attempt: int) -> bool:
        """Whether an attempt at a round was rolled back."""
        return any((one.round, one.attempt) == (number, attempt) for one in self.rolled_back)

    def go_on(self) -> None:
        """It runs again: a round that it was stopped at has not passed, or has to pass anew."""
        if self.stopped is not None:
            self.rounds = [one for one in self.rounds if one.round != self.stopped.round]
        self.status, self.stopped = "running", None

    def forget_after(self, number: int) -> None:
        """A round is done again: what was ruled of those behind it was of another student."""
        self.rolled_back = [one for one in self.rolled_back if one.round <= number]

    def write(self, folder: LoopFolder) -> None:
        """Put it in its place, atomically."""
        best_round = self.best
        watched = {} if self.base is None else self.base.collapse or {}
        told: dict[str, Any] = {
            "format": FORMAT,
            "status": self.status,
            "base": None if self.base is None else self.base.as_dict(),
            "anchors": watched.get("anchors"),
            "rounds": [one.as_dict() for one in self.rounds],
            "best": None if best_round is None else best_round.round,
            "stopped": None if self.stopped is None else asdict(self.stopped),
            "rolled_back": [asdict(one) for one in self.rolled_back],
        }
        text = json.dumps(told, indent=2) + "\n"
        if not folder.state.is_file() or folder.state.read_text("utf-8") != text:
            folder.run.write_text(folder.state, text)


def put_best(folder: LoopFolder, model: Path | None) -> None:
    """Make RUN/best/ that model: hard links where the file system has them.

    Args:
        folder: the loop's.
        model: its folder; None: no round is better than the student it began with, and what an
            earlier start found the best is none of this run's.

    Raises:
        JournalError: the disk is full, and so on.
    """
    partial = folder.best.with_name("best.partial")
    with os_errors(folder.best, "written"):
        if partial.exists():
            shutil.rmtree(partial)
        if model is None:
            shutil.rmtree(folder.best, ignore_errors=True)
            return
        if _same(folder.best, model):
            return
        shutil.copytree(model, partial, copy_function=_link)
        sync_folder(partial)
        if folder.best.exists():
            shutil.rmtree(folder.best)
        partial.rename(folder.best)
        sync_folder(folder.root)


def _same(one: Path, other: Path) -> bool:
    """Whether two folders have the same files, by name, size and time."""
    if not one.is_dir():
        return False
    return _files(one) == _files(other)


def _files(folder: Path) -> Sequence[tuple[str, int, int]]:
    found = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir()]
    return sorted(one for one in found if one[0] != "README.md")  # hub.py writes that


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
