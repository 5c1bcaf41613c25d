"""What a killed run has left in shared memory, and how the next start knows it.

    begin → RUN/began.json (when this start was) → … kill -9 … → remove_leftovers

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
from pathlib import Path

from rlaif.loop.places import LoopFolder

SHARED = Path("/dev/shm")

_NAMES = re.compile(r"torch_\d+_|psm_|sem\.|nccl-|gloo|vllm|cuda\.shm\.|__KMP_REGISTERED_LIB_")
"""As torch, multiprocessing, NCCL, gloo, vLLM, CUDA and OpenMP name what they share."""


def begin(folder: LoopFolder) -> None:
    """Remember when a loop began first; what is older is not its own."""
    file = folder.root / "began.json"
    if not file.is_file():
        folder.run.write_text(file, json.dumps({"time": time.time()}) + "\n")


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
