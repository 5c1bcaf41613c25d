"""Kill a loop at a named moment. Every Python process of the loop loads this by itself.

`RLAIF_MOMENTS` holds a JSON list; each moment comes once:

    {"event": "os.rename", "path": "data/samples/00001.parquet$", "who": "parent", "once": "FILE"}

The process that is about to touch a path of that form kills, with SIGKILL, the loop's own process
("parent"), the loop with all its descendants ("tree"), or itself ("self"). After killing the parent
it hangs: it has to be ended from outside.
"""

import contextlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

_ROOT = "RLAIF_MOMENTS_ROOT"


def _install(moments: list[dict[str, str]]) -> None:
    os.environ.setdefault(_ROOT, str(os.getpid()))

    def hook(event: str, args: tuple[object, ...]) -> None:
        for moment in moments:
            if event == moment["event"]:
                path = args[1] if event == "os.rename" else args[0]
                if isinstance(path, str | Path) and re.search(moment["path"], str(path)):
                    _come(moment)

    sys.addaudithook(hook)


def _come(moment: dict[str, str]) -> None:
    try:
        os.close(os.open(moment["once"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    root = int(os.environ[_ROOT])
    if moment["who"] == "parent":
        os.kill(root, signal.SIGKILL)
        time.sleep(600)
    if moment["who"] == "tree":
        import psutil

        family = psutil.Process(root).children(recursive=True)
        # The loop first: it must not see its children die, and end by an error of its own.
        os.kill(root, signal.SIGKILL)
        for process in family:
            if process.pid != os.getpid():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    os.kill(os.getpid(), signal.SIGKILL)


if "RLAIF_MOMENTS" in os.environ:
    _install(json.loads(os.environ["RLAIF_MOMENTS"]))
