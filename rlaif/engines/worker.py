"""The process that an engine runs in: started by process.py, ended by the end of its pipe.

Requests come through the standard input, answers go through the standard output, and whatever
else the libraries print goes to the standard error. When the other side is gone, even by
``kill -9``, this process and all that it started end too.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from rlaif.engines import wire
from rlaif.engines.protocol import Engine, Sampling

_LOOK_SECONDS = 1.0
"""How often to look whether the parent is still there."""
_GRACE_SECONDS = 3.0
"""How long the engine may take to end, once it is to end."""
_PACKAGE = str(Path(__file__).resolve().parents[1])


def main() -> None:
    """Serve the engine that the first request names until the requests end.

    The process was started with the parent's process id as its last argument.
    """
    requests, answers = _take_pipes()
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = threading.Thread(
        target=_listen, args=(requests, inbox, int(sys.argv[-1])), daemon=True
    )
    listener.start()
    told = _collect_warnings()
    engine: Engine | None = None
    while (request := inbox.get()) is not None:
        try:
            if engine is None:
                engine = _make(request)
                reply: dict[str, Any] = {"answer": None}
            else:
                reply = {"answer": _CALLS[request["call"]](engine, request)}
        except BaseException as error:
            reply = {"error": wire.pack_error(error, traceback.format_exc())}
        if engine is not None:
            reply["usage"] = astuple(engine.usage)
        reply["warnings"], told[:] = told[:], []
        _write(answers, wire.frame(reply))
    if engine is not None:
        engine.close()
    _end()


def _make(request: Mapping[str, Any]) -> Engine:
    module, name = request["engine"].split(":")
    made: Engine = getattr(importlib.import_module(module), name)(**request["arguments"])
    return made


def _generate(engine: Engine, request: Mapping[str, Any]) -> Any:
    given = request["sampling"]
    sampling = Sampling(**given | {"stop": tuple(given["stop"])})
    chats = wire.unpack_chats(request)
    return wire.pack_generations(engine.generate(chats, sampling, request["seeds"]))


def _score(engine: Engine, request: Mapping[str, Any]) -> Any:
    labels = [tuple(label) for label in request["labels"]]
    return wire.pack_scores(engine.score_labels(wire.unpack_chats(request), labels))


_CALLS: Mapping[str, Callable[[Engine, Mapping[str, Any]], Any]] = {
    "identity": lambda engine, _: dict(engine.identity),
    "generate": _generate,
    "score_labels": _score,
}


def _take_pipes() -> tuple[int, int]:
    """The two pipes, out of reach of what is printed or read by anything else."""
    requests, answers = os.dup(0), os.dup(1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr  # which keeps nothing back
    return requests, answers


def _listen(requests: int, inbox: queue.SimpleQueue[Any], parent: int) -> None:
    """Pass requests on as they come, also while the engine works, and end all at their end."""
    waiting = bytearray()
    poll = select.poll()
    poll.register(requests, select.POLLIN | select.POLLHUP)
    # A process that the parent forked may hold the pipe open, so its end alone tells too little.
    while os.getppid() == parent:
        if not poll.poll(_LOOK_SECONDS * 1000):
            continue
        got = os.read(requests, 1 << 20)
        if not got:
            break
        waiting += got
        while (message := _take_message(waiting)) is not None:
            inbox.put(json.loads(message))
    inbox.put(None)
    threading.Event().wait(_GRACE_SECONDS)
    _end()


def _take_message(waiting: bytearray) -> bytes | None:
    if len(waiting) < wire.HEADER.size:
        return None
    end = wire.HEADER.size + wire.HEADER.unpack_from(waiting)[0]
    if len(waiting) < end:
        return None
    message = bytes(waiting[wire.HEADER.size : end])
    del waiting[:end]
    return message


def _write(answers: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(answers, view) :]


def _collect_warnings() -> list[str]:
    """The texts of warnings that this package gives; others' are printed as ever."""
    told: list[str] = []
    show = warnings.showwarning

    def showwarning(message: Any, category: Any, filename: str, *more: Any, **named: Any) -> None:
        if filename.startswith(_PACKAGE):
            told.append(str(message))
        else:
            show(message, category, filename, *more, **named)

    warnings.showwarning = showwarning
    return told


def _end() -> None:
    """End this process and those that it started, at once."""
    sys.stderr.flush()
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
