"""What a killed run has left: processes that are ending, and shared memory.

    begin → RUN/began.json (when this start was) → … kill -9 … → end_descendants, remove_leftovers

The processes of a loop know it by a variable in their environment. Those of a run whose own
process was killed end by themselves within seconds; until then they still write.

Libraries put what their processes share into /dev/shm under names of their own; with the processes
dead, nobody removes it. Removed is only a file that this user owns, that has the whole form of such
a name, that was made since the loop began, and that no living process has open or mapped. Processes
of another container that shares this memory are not in /proc: of those the kernel tells, which
refuses a lease on a file that anybody uses. Where it knows no leases, such files look unused.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlaif.loop.places import LoopFolder

SHARED = Path("/dev/shm")
VARIABLE = "RLAIF_LOOP"
"""Set in the environment of all that a loop starts: the loop's folder."""
_GRACE_SECONDS = 10.0
"""How long processes of a killed run may take to end by themselves."""

_NAMES = re.compile(
    "|".join(
        (
            r"torch_\d+_\d+_\d+",
            r"psm_[0-9a-f]{8}",  # Python's multiprocessing, and all that vLLM takes from it
            r"sem\.mp-[a-z0-9_]{8}",
            r"sem\.loky-\d+-[a-z0-9_]{8}",  # joblib
            r"nccl-[A-Za-z0-9]{6}",
            r"cuda\.shm\.[0-9a-f]+\.[0-9a-f]+\.[0-9a-f]+",
            r"__KMP_REGISTERED_LIB_\d+_\d+",  # OpenMP
            r"VLLM_OBJECT_STORAGE_SHM_BUFFER_[0-9a-f]{32}",
            r"vllm_offload_([0-9a-f]{5}|[0-9a-f-]{36})(_dp\d+)?\.mmap",
            r"\d+-[a-z]+:\d+-\[\d+(-\d+)*\]-cpushm_\d+",  # vLLM on CPUs
            r"deepspeed_allreduce_buffer_\d+_[\w.:-]+_\d+_\d+",
        )
    )
)
"""As libraries name what their processes share, from the first character to the last."""


def begin(folder: LoopFolder) -> None:
    """Remember when a loop began first; what is older is not its own."""
    file = folder.root / "began.json"
    if not file.is_file():
        folder.run.write_text(file, json.dumps({"time": time.time()}) + "\n")


def end_descendants(folder: LoopFolder, grace: float = _GRACE_SECONDS) -> int:
    """Wait until no process of an earlier start is left; end what is there after the grace.

    Args:
        folder: the loop's; the caller holds its lock, so that no other start is at work.
        grace: in seconds.

    Returns:
        How many had to be ended.
    """
    import psutil

    end = time.monotonic() + grace
    while left := list(_descendants(folder)):
        if time.monotonic() > end:
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=grace)
            return len(left)
        time.sleep(0.1)
    return 0


def _descendants(folder: LoopFolder) -> Iterator[Any]:
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if ours and process.environ().get(VARIABLE) == str(folder.root):
                yield process


def remove_leftovers(folder: LoopFolder, say: Callable[[str], None], shared: Path = SHARED) -> int:
    """Remove what this loop's killed processes have left in shared memory.

    Returns:
        How many segments.
    """
    try:
        began = float(json.loads((folder.root / "began.json").read_bytes())["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    found = [
        path
        for path in (shared.iterdir() if shared.is_dir() else ())
        if _NAMES.fullmatch(path.name) and _ours(path, began)
    ]
    used = set(_in_use()) if found else set()
    removed = 0
    for path in found:
        with suppress(OSError):  # what cannot be removed stays, and is no reason not to start
            if str(path) not in used and not _held(path):
                path.unlink()
                removed += 1
    if removed:
        say(f"removed {removed} segments that a killed run has left in shared memory")
    return removed


def _ours(path: Path, began: float) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    owned = stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()
    return owned and status.st_ctime >= began


def _held(path: Path) -> bool:
    """Whether anybody has a file open or mapped, by the kernel; False where it cannot tell."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # The holder of a lease is sent a signal when another opens the file: one that is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)  # with it goes the lease
    return False


def _in_use() -> Iterator[str]:
    """What living processes have mapped or open, as far as this user may know."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for line in (process / "maps").read_text().splitlines():
                if "/dev/shm/" in line:
                    yield line[line.index("/") :].removesuffix(" (deleted)")
            for descriptor in (process / "fd").iterdir():
                yield str(descriptor.readlink())
        except OSError:  # it has ended, or is another user's
            continue
