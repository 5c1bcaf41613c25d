"""What a loop spends, a stage and a round, and the cap that it never passes.

    stage.py → RUN/cost.jsonl → what is left → the next stage

A line is written after every shard, so that what is killed was counted but for its last shard.
The stage stops before what could pass the budget: a shard, by the largest one of its kind so far,
in earlier starts and rounds too; a call to a model, by its chats and the answers' greatest length;
a request that has a price, by the most that it may cost; and the second in which the time is up.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rlaif.engines import meter
from rlaif.errors import BudgetError
from rlaif.recipe import Recipe
from rlaif.run_folder import os_errors

_LOOK_SECONDS = 0.5
"""How often a clock is looked at that is paid for."""
_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent.

    Attributes:
        seconds: of wall time.
        device_seconds: of all GPUs together; of the machine where there is none.
        requests: to models.
        computed_tokens, generated_tokens: by them.
        money: in the recipe's currency.
    """

    seconds: float = 0.0
    device_seconds: float = 0.0
    requests: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    money: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.computed_tokens + self.generated_tokens


def times(spent: Spent, factor: float) -> Spent:
    """So many times as much."""
    return Spent(*(getattr(spent, f.name) * factor for f in fields(Spent)))


def read_cost(file: Path) -> list[dict[str, Any]]:
    """The lines of a cost file; one that was being written when all ended is left out."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_bytes().splitlines():
        try:
            found.append(dict(json.loads(line)))
        except ValueError:
            continue
    return found


def total(lines: Iterable[dict[str, Any]]) -> Spent:
    """What cost lines add up to."""
    names = [f.name for f in fields(Spent)]
    return sum((Spent(*(line.get(n, 0) for n in names)) for line in lines), Spent())


def devices() -> int:
    """GPUs of this machine that may be used; 1 where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return max(1, len([one for one in visible.split(",") if one.strip()]))
    return max(1, len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0)


class Books:
    """A stage's own books: what it has spent, line by line, and what is left.

    Args:
        file: the loop's cost file.
        recipe: with prices and budget.
        round_, attempt, stage: whose books they are.
    """

    def __init__(self, file: Path, recipe: Recipe, round_: int, attempt: int, stage: str) -> None:
        self._file, self._recipe = file, recipe
        self._names = {"round": round_, "attempt": attempt, "stage": stage}
        lines = read_cost(file)
        self._before = total(lines)
        self._written = Spent()
        shards = [one for one in lines if one.get("stage") == stage and "part" in one]
        self._largest = _largest(total([one]) for one in shards)
        self._began = time.monotonic()
        self._writing = threading.Lock()
        meter.start(self._before_call, lambda money: self.hold_to(Spent(money=money)))

    def line(self, part: str | None = None) -> None:
        """Write what was spent since the last line.

        Args:
            part: of the stage, that a shard of was finished with it.
        """
        with self._writing:
            now = self._now()
            step = now - self._written
            self._largest = _largest([self._largest, step])
            told = {**self._names, **{k: round(v, 6) for k, v in asdict(step).items()}}
            if part is not None:
                told["part"] = part
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with os_errors(self._file, "written"), self._file.open("ab", buffering=0) as stream:
                stream.write(_after_a_whole_line(self._file) + json.dumps(told).encode() + b"\n")
            self._written = now  # not before: what cuts this short leaves it to the next line

    def progress(self, stage: str, done: int, of: int) -> None:
        """A shard is finished: write it down; before the next one, see that it can be paid for.

        Raises:
            BudgetError: it cannot.
        """
        self.line(stage)
        if done < of:
            self.hold_to(self._largest)

    def watch(self, pause: Callable[[BudgetError], None]) -> None:
        """Look at the clock from now on, where time is what is paid for.

        Args:
            pause: is told, in a thread of its own, when the next second cannot be paid for.
        """
        budget = self._recipe.budget
        if budget.gpu_hours is None and (budget.money is None or not self._recipe.costs.gpu_hour):
            return

        def look() -> None:
            while True:
                try:
                    self.hold_to(self._seconds(2 * _LOOK_SECONDS))
                except BudgetError as error:
                    pause(error)
                    return
                time.sleep(_LOOK_SECONDS)

        # The meter is the context's.
        body = copy_context().run
        threading.Thread(target=body, args=(look,), name="budget", daemon=True).start()

    def _before_call(self, tokens: int) -> None:
        """What a call may take, and what is left of the largest shard so far, must be paid for."""
        now = self._now()
        largest = self._written + self._largest
        left = max(0, largest.tokens - now.tokens)
        money = max(0.0, largest.money - now.money)
        self.hold_to(Spent(generated_tokens=max(left, tokens), money=money))

    def hold_to(self, coming: Spent) -> None:
        """See that what is coming can be paid for.

        Raises:
            BudgetError: spending so much more would pass the budget.
        """
        spent = self._before + self._now() + coming
        budget = self._recipe.budget
        hours = spent.device_seconds / 3600
        for key, cap, value in (
            ("money", budget.money, spent.money),
            ("tokens", budget.tokens, spent.tokens),
            ("gpu_hours", budget.gpu_hours, hours),
        ):
            if cap is not None and value > cap:
                raise BudgetError(
                    f"what comes next would bring it to {value:.6g}: paused before that",
                    key=f"budget.{key}", value=cap,
                    mend="raise it and start again: everything finished is kept",
                )  # fmt: skip

    def _now(self) -> Spent:
        used = meter.used()
        engines = Spent(0.0, 0.0, used.requests, used.computed_tokens, used.generated_tokens,
                        used.money)  # fmt: skip
        return engines + self._seconds(time.monotonic() - self._began)

    def _seconds(self, seconds: float) -> Spent:
        """So many seconds, with what they cost."""
        device_seconds = seconds * devices()
        per_hour = self._recipe.costs.gpu_hour or 0.0
        return Spent(seconds, device_seconds, money=device_seconds / 3600 * per_hour)


def _largest(spent: Iterable[Spent]) -> Spent:
    """The largest of each figure."""
    found = [Spent(), *spent]
    return Spent(*(max(getattr(one, f.name) for one in found) for f in fields(Spent)))


def _after_a_whole_line(file: Path) -> bytes:
    """A newline, where the last line of a file was cut off by a kill."""
    if not file.is_file() or not file.stat().st_size:
        return b""
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return b"" if stream.read() == b"\n" else b"\n"
