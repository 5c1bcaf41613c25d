"""Where everything in a run lies, and how a file gets there: wholly, or not at all.

    RUN/recipe.yaml, constitution.yaml      what was run
    RUN/data/<stage>/00000.parquet          nothing but Parquet, so that any tool can load it
    RUN/manifests/<stage>/00000.json        what each shard was made of
    RUN/kept_aside/<stage>/00000.jsonl      dropped rows and why, where there are any
    RUN/models/<stage>/                     final models and their checkpoints
    RUN/engines/                            what engines keep: money spent, batches under way
    RUN/log.jsonl, summary.json             times and process ids; the run's figures
    RUN/lock, tmp/                          who works here; files not yet in their place

The journal stands on this module, and every stage on the journal.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rlaif.errors import JournalError

_FREE_SPACE = "free some space and start again: every finished shard is kept"
_MENDS = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and start again",
    errno.EACCES: "give yourself the permission, or name another run folder",
    errno.EPERM: "give yourself the permission, or name another run folder",
    errno.EROFS: "name a run folder on a disk that can be written",
    errno.EEXIST: "a file is in the way: move it, or name another run folder",
    errno.EISDIR: "a folder is in the way: move it, or name a file",
    errno.ENOTDIR: "a file is in the way: move it, or name another run folder",
    errno.EXDEV: "keep the whole run folder on one file system",
    errno.ENOLCK: "name a run folder on a file system that has locks",
    errno.ENOSYS: "name a run folder on a file system that has locks",
    errno.EOPNOTSUPP: "name a run folder on a file system that has locks",
}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The places in a run. Making one touches no disk; `create` and the writers do."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it was run."""
        return self.root / "recipe.yaml"

    @property
    def constitution(self) -> Path:
        """The constitution as it was run."""
        return self.root / "constitution.yaml"

    @property
    def log_file(self) -> Path:
        """Events, one JSON object a line: times, speeds, process ids. Never fingerprinted."""
        return self.root / "log.jsonl"

    @property
    def summary(self) -> Path:
        """The run's figures, as JSON."""
        return self.root / "summary.json"

    @property
    def temp(self) -> Path:
        """Files that are not yet in their place; on the same file system as the rest."""
        return self.root / "tmp"

    def data(self, stage: str) -> Path:
        """The folder of a stage's Parquet shards."""
        return self.root / "data" / stage

    def manifests(self, stage: str) -> Path:
        """The folder of a stage's manifests, one a shard."""
        return self.root / "manifests" / stage

    def kept_aside(self, stage: str) -> Path:
        """The folder of the rows a stage dropped, with the reasons."""
        return self.root / "kept_aside" / stage

    def model(self, stage: str) -> Path:
        """The folder of a trained model."""
        return self.root / "models" / stage

    @property
    def engines(self) -> Path:
        """The folder of what engines keep beyond their processes."""
        return self.root / "engines"

    def create(self) -> RunFolder:
        """Make the folder where it does not exist.

        Raises:
            JournalError: it cannot be made.
        """
        with os_errors(self.root, "written"):
            _make_folder(self.root)
        return self

    def write_text(self, path: Path, text: str) -> None:
        """`write_bytes` for UTF-8 text."""
        self.write_bytes(path, text.encode())

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Put a file in its place atomically and durably.

        After a crash at any moment, `path` holds all of the old bytes or all of the new ones.

        Raises:
            JournalError: the disk is full, there is no permission, and so on. Nothing half-done
                stays behind.
        """
        with os_errors(path, "written"):
            _make_folder(self.temp)
            _make_folder(path.parent)
            prefix = self._temp_prefix(path.parent)
            with tempfile.TemporaryDirectory(dir=self.temp, prefix=prefix) as folder:
                temp = Path(folder) / path.name
                with temp.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temp.replace(path)
            sync_folder(path.parent)

    def sweep(self, folder: Path | None = None) -> None:
        """Remove what a killed process left half-written (on its way to `folder`, or at all)."""
        pattern = "*" if folder is None else f"{self._temp_prefix(folder)}*"
        with os_errors(self.temp, "written"):
            for leftover in self.temp.glob(pattern):
                shutil.rmtree(leftover)

    def _temp_prefix(self, folder: Path) -> str:
        return "+".join(folder.relative_to(self.root).parts) + "."

    def log(self, event: str, **fields: object) -> None:
        """Append an event to the log, with the time (UTC) and the process id."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "pid": os.getpid(), "event": event, **fields}, default=str)
        with os_errors(self.log_file, "written"):
            _make_folder(self.root)
            # One unbuffered write: lines of several processes do not mix.
            with self.log_file.open("ab", buffering=0) as file:
                file.write(f"{line}\n".encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other run out of this folder; the lock goes when the process does.

        Raises:
            JournalError: another process holds the folder.
        """
        self.create()
        path = self.root / "lock"
        with os_errors(path, "locked"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _held.add(descriptor)
        try:
            self._take(descriptor, path)
            self.sweep()
            yield
        finally:
            if descriptor in _held:  # not so in a forked child, which has let go of it already
                _held.remove(descriptor)
                os.close(descriptor)

    def _take(self, descriptor: int, path: Path) -> None:
        with os_errors(path, "locked"):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                raise JournalError(
                    f"{holder or 'another process'} is working in this run folder",
                    file=self.root,
                    mend="wait until it ends, or name another run folder",
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _let_go() -> None:
    """A forked worker that outlives a killed run must not keep the run's lock."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def os_errors(path: Path, doing: Literal["read", "written", "locked"]) -> Iterator[None]:
    """Turn what the system says about `path` into one line that names the mend."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        mend = _MENDS.get(error.errno or 0, "check the disk")
        raise JournalError(f"cannot be {doing}: {why}", file=path, mend=mend) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename is lost with the power until this is done."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such thing
            raise
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)
