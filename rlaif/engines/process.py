"""An engine in a process of its own: its libraries, threads and memory are gone when it ends.

a stage → ProcessEngine ⇄ pipes (wire.py) ⇄ worker.py → the engine

The process may run under another interpreter, where an engine's dependencies are not ours. It ends
with `close`, and with this process, however that ends.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from rlaif.engines import wire
from rlaif.engines.protocol import Generation, Label, LabelScore, Sampling, Usage
from rlaif.errors import EngineError
from rlaif.records import Chat

_PACKAGE = Path(__file__).resolve().parents[1]
_BOOT = """\
import sys
from importlib import util
spec = util.spec_from_file_location(
    "rlaif", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
sys.modules["rlaif"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["rlaif"])
from rlaif.engines.worker import main
main()
"""
"""Imports this very package under another interpreter, and nothing else that lies beside it."""
_LOOK_SECONDS = 0.5
_CLOSE_SECONDS = 10.0
_KEPT_LINES, _TOLD_LINES, _LONGEST_LINE = 100, 3, 4096

_log = logging.getLogger(__name__)


class ProcessEngine:
    """Any engine, run by a worker process.

    What the worker prints is told to the logger `rlaif.engines.process` at the level DEBUG.

    Args:
        engine: the module and the class or function that makes the engine, "package.module:Name".
        arguments: named arguments for it, JSON-able.
        python: the interpreter; by default this one.

    Raises:
        EngineError: no such interpreter, or the process ended.
        RlaifError: whatever the engine raises when it is made.
    """

    def __init__(
        self, engine: str, arguments: Mapping[str, Any], python: str | Path | None = None
    ) -> None:
        self.usage = Usage()
        self._name = str(arguments.get("model", engine))
        self._failed: EngineError | None = None
        self._one_call = threading.Lock()
        self._process = _start(python, self._name)
        assert self._process.stderr is not None
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader = threading.Thread(
            target=_keep_lines, args=(self._process.stderr, self._said), daemon=True
        )
        self._reader.start()
        self._finalizer = weakref.finalize(self, _kill, self._process, os.getpid())
        try:
            self._ask({"engine": engine, "arguments": dict(arguments)})
        except BaseException:
            self._finalizer()
            raise

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What the engine says that decides its output."""
        identity: dict[str, str] = self._ask({"call": "identity"})
        return identity

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """As the engine does it; raises what the engine raises, and EngineError if it died."""
        asked = {"sampling": asdict(sampling), "seeds": list(seeds)}
        return wire.unpack_generations(
            self._ask({"call": "generate", **asked, **wire.pack_chats(chats)})
        )

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """As the engine does it; raises what the engine raises, and EngineError if it died."""
        asked = {"call": "score_labels", "labels": labels}
        return wire.unpack_scores(self._ask({**asked, **wire.pack_chats(chats)}))

    def close(self) -> None:
        """End the process, and with it all that it started."""
        if self._failed is None:
            self._failed = EngineError(f"the engine of {self._name} was closed", mend="load it")
        if not self._finalizer.alive:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()  # the worker's sign to end
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_SECONDS)
        self._finalizer()

    def _ask(self, request: Mapping[str, Any]) -> Any:
        try:
            data = wire.frame(request)
        except TypeError as error:
            raise EngineError(f"an argument of {self._name} is not JSON: {error}") from error
        with self._one_call:
            if self._failed is not None:
                raise self._failed
            try:
                self._send(data)
                reply = json.loads(self._receive(self._receive_length()))
            except _EndedError:
                self._failed = self._why_ended()
                raise self._failed from None
            except BaseException:  # an answer to come would be taken for that of the next call
                self._failed = EngineError(f"the engine of {self._name} was interrupted")
                self._finalizer()
                raise
        return self._read(reply)

    def _read(self, reply: Mapping[str, Any]) -> Any:
        for text in reply["warnings"]:
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        if "usage" in reply:
            for field, value in zip(fields(Usage), reply["usage"], strict=True):
                setattr(self.usage, field.name, value)
        if "error" in reply:
            raise wire.unpack_error(reply["error"])
        return reply["answer"]

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        view = memoryview(data)
        while view:
            self._wait_for(pipe, select.POLLOUT)
            try:
                view = view[os.write(pipe, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise _EndedError from None

    def _receive_length(self) -> int:
        length: int = wire.HEADER.unpack(self._receive(wire.HEADER.size))[0]
        return length

    def _receive(self, size: int) -> bytes:
        assert self._process.stdout is not None
        pipe, parts = self._process.stdout.fileno(), list[bytes]()
        while size:
            self._wait_for(pipe, select.POLLIN)
            part = os.read(pipe, min(size, 1 << 20))
            if not part:
                raise _EndedError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _wait_for(self, pipe: int, event: int) -> None:
        """Wait until a pipe is ready.

        That a worker is dead does not always show there: a process that it started may live on
        and hold the other end.
        """
        poll = select.poll()
        poll.register(pipe, event)
        while not poll.poll(_LOOK_SECONDS * 1000):
            if self._process.poll() is not None and not poll.poll(0):
                raise _EndedError

    def _why_ended(self) -> EngineError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LOOK_SECONDS)
        self._finalizer()
        self._reader.join(_LOOK_SECONDS)
        lines = [line for line in self._said if line.strip()]
        last = " | ".join(lines[-_TOLD_LINES:])
        error = EngineError(
            f"the process of {self._name} ended: {_status(self._process.returncode)}"
            + (f"; it last said: {last}" if last else ""),
            mend="what is finished is kept: start again to go on",
        )
        error.add_note("\n".join(lines))
        return error


class _EndedError(Exception):
    """The worker is gone."""


def _start(python: str | Path | None, name: str) -> subprocess.Popen[bytes]:
    interpreter = sys.executable if python is None else str(Path(python).expanduser())
    try:
        process = subprocess.Popen(
            # -P: what lies in the working directory is not imported in a library's place.
            [interpreter, "-P", "-c", _BOOT, str(_PACKAGE), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # a group to be killed as one; Ctrl-C is ours alone
        )
    except OSError as error:
        raise EngineError(
            f"cannot start the interpreter that is to run {name}: {error.strerror}",
            key="python",
            value=interpreter,
        ) from error
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _kill(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:  # a fork of ours that comes to its end
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _keep_lines(pipe: IO[bytes], lines: deque[str]) -> None:
    with BufferedReader(pipe) as said:  # type: ignore[type-var]
        while line := said.readline(_LONGEST_LINE):
            text = line.decode("utf-8", "replace").rstrip()
            lines.append(text)
            _log.debug("%s", text)


def _status(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
