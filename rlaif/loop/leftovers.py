"""What a killed run has left: processes that are ending, and shared memory.

    begin → RUN/began.json (when this start was) → … kill -9 … → end_descendants, remove_leftovers

The processes of a loop know it by a variable in their environment. Those of a run whose own
process was killed end by themselves within seconds; until then they still write.

Libraries put what their processes share into /dev/shm under names of their own; with the processes
dead, nobody removes it. Removed is only what this user owns, what has the form of such a name, what
was made since the loop began, and what no living process has open or mapped.
"""

from __future__ import annotations

import json
import os
import re
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

_NAMES = re.compile(r"torch_\d+_|psm_|sem\.|nccl-|gloo|vllm|cuda\.shm\.|__KMP_REGISTERED_LIB_")
"""As torch, multiprocessing, NCCL, gloo, vLLM, CUDA and OpenMP name what they share."""


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
        if _NAMES.match(path.name) and _ours(path, began)
    ]
    used = set(_in_use()) if found else set()
    removed = 0
    for path in found:
        if str(path) not in used:
            path.unlink(missing_ok=True)
            removed += 1
    if removed:
        say(f"removed {removed} segments that a killed run has left in shared memory")
    return removed


def _ours(path: Path, began: float) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and status.st_ctime >= began


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
