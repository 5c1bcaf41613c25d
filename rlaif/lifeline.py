"""A process that ends with the one it works for, however that one ends.

    parent ──pipe──▶ standard input of a child, of its children, and of theirs

The parent keeps the writing end and writes nothing. When it is gone, even by ``kill -9``, every
process that reads its standard input from the pipe sees its end. A signal upon the parent's death
(PR_SET_PDEATHSIG) would reach the child alone, not what `accelerate launch` has started below it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

VARIABLE = "RLAIF_LIFELINE"
"""Set in the environment of processes whose standard input is such a pipe."""


def hold() -> None:
    """Let this process end when the pipe does, with all that it has started.

    Nothing happens where the standard input is not such a pipe.
    """
    if os.environ.get(VARIABLE) == "stdin":
        threading.Thread(target=_wait_and_end, name="lifeline", daemon=True).start()


def _wait_and_end() -> None:
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    while not any(event & (select.POLLHUP | select.POLLNVAL) for _, event in poll.poll()):
        continue
    end()


def end() -> NoReturn:
    """End this process and its descendants at once."""
    kill_below(os.getpid())
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError  # never reached


def kill_below(pid: int) -> None:
    """Kill all descendants of a process, those that they start meanwhile as well."""
    while found := below(pid):
        kill(found)


def below(pid: int) -> list[Any]:
    """The living descendants of a process, as psutil's; none where it is gone."""
    import psutil

    try:
        return [p for p in psutil.Process(pid).children(recursive=True) if _alive(p)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: Sequence[Any]) -> None:
    """Kill processes that `below` has found, but none that has got the number of one since."""
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=0.2)


def _alive(process: Any) -> bool:
    import psutil

    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
