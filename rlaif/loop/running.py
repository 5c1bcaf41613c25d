"""A loop at work, and how it does one stage: not again if it is finished, in a process of its own.

Under rounds.py. A stage that the kernel has killed is started once more; any other end that is no
success is one error, in the words of the process that failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rlaif.errors import BudgetError, GateError, JournalError, RecipeError, TrainError
from rlaif.loop import stage
from rlaif.loop.child import Ended, run_child
from rlaif.loop.depends import Digests
from rlaif.loop.finished import Finished, Label, damaged
from rlaif.loop.leftovers import VARIABLE, end_descendants
from rlaif.loop.places import LoopFolder
from rlaif.loop.state import State
from rlaif.recipe import Loop, Recipe
from rlaif.records import fingerprint
from rlaif.run_folder import RunFolder

Say = Callable[[str], None]

_TRIES_AFTER_KILL = 1
"""How often a stage is started again that the kernel has killed."""
_WAIT_SECONDS = 30.0
"""How long to wait for processes of a run that was killed; they end within seconds."""


@dataclass(frozen=True, slots=True)
class Running:
    """A loop at work.

    Attributes:
        file: the recipe's.
        recipe: as loaded.
        folder: the loop's.
        finished: records of finished stages.
        digests: of files.
        say: is told what happens, a line at a time.
    """

    file: Path
    recipe: Recipe
    folder: LoopFolder
    finished: Finished
    digests: Digests
    say: Say

    @property
    def loop(self) -> Loop:
        """The recipe's section."""
        assert self.recipe.loop is not None
        return self.recipe.loop


def do_stage(
    running: Running,
    label: Label,
    run: RunFolder,
    made_of: Mapping[str, Any],
    attempt: int,
    who: str,
) -> None:
    """Do a stage, unless it is finished.

    Args:
        running: the loop.
        label: which stage of which round.
        run: the round's folder.
        made_of: all that decides its output.
        attempt: at this round, from 0.
        who: judges: "teacher" or "student".

    Raises:
        RecipeError: it is finished, and the recipe would change it.
        GateError: the judge falls short.
        BudgetError: the budget is spent.
        TrainError: it failed.
    """
    if running.finished.holds(label, made_of, running.file):
        fault = damaged(run, label.stage)
        if fault is None:
            return
        running.say(f"{label}: {fault}; it is done again")
    running.say(f"{label}: started")
    ended = _run(running, label, run, attempt, who)
    if ended.status:
        raise _error(running, label, ended)
    running.finished.write(label, made_of)
    running.say(f"{label}: finished in {ended.seconds:.1f} s")


def check_training(running: Running) -> None:
    """Hold the recipe's `train` blocks against TRL's configs before anything is paid for.

    In a child: it takes torch, of which this process is to stay free. What has passed is not asked
    again where a loop is gone on with, unless it names a metric, whose code nothing here knows.
    """
    versions = {name: version(name) for name in ("trl", "transformers", "peft")}
    asked = running.recipe.model_dump(mode="json", include={"train", "loop"})
    passed, checked = fingerprint({**asked, **versions}), running.folder.checked
    if running.loop.metric is None and _is(checked, passed):
        return
    arguments = ["-m", "rlaif.loop.check_training", str(running.file)]
    ended = _run_child(running, arguments, "check")
    if ended.status == stage.FAILED:
        raise RecipeError(_told(ended.said))
    if ended.status:
        raise TrainError(
            f"the recipe's training could not be checked: {_told(ended.said)}",
            file=running.folder.said("check"),
        )
    running.folder.run.write_text(checked, passed)


def _is(file: Path, text: str) -> bool:
    try:
        return file.read_text("utf-8") == text
    except (OSError, ValueError):
        return False


def _run(running: Running, label: Label, run: RunFolder, attempt: int, who: str) -> Ended:
    arguments = [
        "-m", "rlaif.loop.stage", label.stage, str(running.folder.root),
        "--round", str(label.round), "--attempt", str(attempt), "--judge", who,
    ]  # fmt: skip
    for again in range(_TRIES_AFTER_KILL + 1):
        end_descendants(running.folder)
        _wait_for(run)
        ended = _run_child(running, arguments, str(label))
        running.folder.run.log(
            "ended", stage=str(label), status=ended.status, seconds=round(ended.seconds, 3)
        )
        if not ended.killed or again == _TRIES_AFTER_KILL:
            break
        running.say(f"{label}: killed, perhaps for want of memory; started again")
    return ended


def _run_child(running: Running, arguments: list[str], said: str) -> Ended:
    environ = {VARIABLE: str(running.folder.root)}
    return run_child(arguments, running.folder.said(said), environ)


def _told(said: str) -> str:
    """Why a process ended: the trainer's own word, that of the stage above it, or the last line."""
    lines = said.splitlines()
    for name in ("rlaif.train: ", "rlaif: "):
        found = [line for line in lines if line.startswith(name)]
        if found:
            return found[-1].removeprefix(name)
    return lines[-1] if lines else "it said nothing"


def _error(running: Running, label: Label, ended: Ended) -> Exception:
    """What a stage's end means."""
    what = _told(ended.said)
    if ended.status == stage.REFUSED:
        return GateError(what)
    if ended.status == stage.PAUSED:
        state = State.read(running.folder)
        state.status = "paused"
        state.write(running.folder)
        return BudgetError(what)
    how = f"killed by signal {-ended.status}" if ended.status < 0 else f"status {ended.status}"
    return TrainError(
        f"{label} failed ({how}): {what}", file=running.folder.said(str(label)),
        mend="what is finished is kept: mend it and start again",
    )  # fmt: skip


def _wait_for(run: RunFolder) -> None:
    """Wait until processes of a killed run, which end within seconds, have left a folder."""
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            with run.lock():
                return
        except JournalError:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)
