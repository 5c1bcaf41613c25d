"""A stage in a process of its own: it gives all its memory back, and nothing of it stays behind.

    rounds → run_child → `python -m rlaif.loop.stage …` → engines, or `accelerate launch`

The child has a session of its own, so that Ctrl-C comes to the loop alone, which passes it on.
What the child prints goes to a file; the last lines are told where it fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rlaif import lifeline

_GRACE_SECONDS = 10.0
"""How long a child may take to end once it was told to."""
_TOLD_LINES = 120
"""As many as the launcher's own account of a failure takes, and what the trainer said before."""
_FAILED = 2
"""A stage's exit status where it ends by an error, its launcher's among them."""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GOES_ON = "it goes on here"
"""What a loop does that is started again."""


class InterruptedLoopError(BaseException):
    """A signal asked the loop to end; not an error, so that nothing takes it for one.

    Attributes:
        signal: its number.
        again: what happens if the command is started again.
    """

    def __init__(self, number: int, again: str = GOES_ON) -> None:
        self.signal, self.again = number, again
        super().__init__(signal.Signals(number).name)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        status: exit status; negative: the signal that killed it.
        seconds: from its start to its end.
        said: the last lines that it printed.
    """

    status: int
    seconds: float
    said: str

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that nobody here sent, as the kernel does for want of memory.

        It takes the largest process, which is the trainer: the launcher above it then fails by
        itself, and says why.
        """
        if self.status in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return True
        return self.status == _FAILED and "SIGKILL" in self.said


def run_child(
    arguments: Sequence[str], said: Path, environ: Mapping[str, str] | None = None
) -> Ended:
    """Run `python ARGUMENTS` to its end.

    Args:
        arguments: after the interpreter.
        said: the file that takes what it prints; added to.
        environ: changes to the environment.

    Raises:
        InterruptedLoopError: a signal came meanwhile; the child is gone then.
    """
    said.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    began = time.monotonic()
    with said.open("ab") as file:
        start = file.tell()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=reading, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **(environ or {}), lifeline.VARIABLE: "stdin"},
        )  # fmt: skip
    os.close(reading)
    try:
        status = process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        # What the child left running, if it was killed, ends by this.
        os.close(writing)
        _kill_group(process.pid)
    return Ended(status, time.monotonic() - began, _tail(said, start))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a child to end, and see that it does, with all that it has started."""
    # Found now: of a child that is gone, nobody can tell what it has started.
    started = lifeline.below(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    lifeline.kill_below(process.pid)
    lifeline.kill(started)
    _kill_group(process.pid)
    process.wait()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _tail(file: Path, start: int) -> str:
    """The last lines that were added to a file behind `start`."""
    with file.open("rb") as stream:
        stream.seek(max(start, file.stat().st_size - 20_000))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-_TOLD_LINES:])


@contextmanager
def signals(again: str = GOES_ON) -> Iterator[None]:
    """Turn signals that ask to end into `InterruptedLoopError`, in the main thread.

    Args:
        again: what happens if the command is started again.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise InterruptedLoopError(number, again)

    before: dict[int, Any] = {}
    with suppress(ValueError):  # not the main thread
        for one in _PASSED_ON:
            # `nohup`, and a shell that starts it in the background, have it ignore some.
            if signal.getsignal(one) is not signal.SIG_IGN:
                before[one] = signal.signal(one, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
