"""What makes a stage durable: shards that are wholly there or not at all, and known by content.

A stage is a plain function from records to records and knows nothing of this module. The pipeline
cuts the stage's work into shards and hands each one here with everything it depends on. Starting
again, after an error or a kill at any moment, skips the shards that still hold, does the rest,
and ends byte for byte where an undisturbed run would have.

A shard holds if its manifest is there, was made of the same things (`depends`), and the bytes on
disk are those the manifest names. The manifest is written last.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.errors import JournalError
from rlaif.manifest import Depends, Manifest, changes
from rlaif.records import Drop, fingerprint
from rlaif.run_folder import RunFolder, os_errors, sync_folder

_ROWS_A_GROUP = 1024
_START_AGAIN = "start again, and this shard is redone"
_STAGE_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One stage's output in a run folder: Parquet shards, numbered from 0.

    Args:
        run: the run folder.
        name: the stage's folder, which may be nested ("verdicts/pointwise/ab12"). No stage's
            name is the folder of another's.
        schema: of every shard.
    """

    run: RunFolder
    name: str
    schema: pa.Schema
    _told: set[tuple[int, str]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        if not _STAGE_NAME.fullmatch(self.name):
            raise ValueError(f"not a stage's name: {self.name!r}")

    def done(self, shard: int, depends: Depends) -> bool:
        """Whether the shard holds; why a shard that was there does not is logged, once.

        Raises:
            JournalError: its files cannot be read, or are of a newer version.
        """
        fault = self._fault(shard, depends)
        if fault and (shard, fault) not in self._told:
            self._told.add((shard, fault))
            self.run.log("redo", stage=self.name, shard=shard, why=fault)
        return fault is None

    def write(
        self,
        shard: int,
        depends: Depends,
        table: pa.Table,
        drops: Iterable[Drop] = (),
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit a shard: the data, then the dropped rows, then the manifest, with any notes.

        Raises:
            JournalError: something cannot be written; the shard then counts as not done.
            ValueError: the table's columns are not the stage's.
        """
        drops = list(drops)
        data, aside = self._parquet(table), _drops_to_jsonl(drops)
        self.run.write_bytes(self._data_file(shard), data)
        self._write_aside(shard, aside)
        manifest = Manifest(
            fingerprint=self._fingerprint(depends),
            depends=dict(depends),
            columns=self._columns,
            rows=table.num_rows,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            dropped=dict(Counter(d.reason for d in drops)),
            drops_sha256=hashlib.sha256(aside).hexdigest() if drops else None,
            notes=dict(notes or {}),
        )
        self.run.write_text(self._manifest_file(shard), manifest.to_json())

    def read(self, shard: int) -> pa.Table:
        """A finished shard's rows, checked against the manifest.

        Raises:
            JournalError: the shard is not finished, is damaged, or has other columns.
        """
        path, manifest = self._data_file(shard), self.manifest(shard)
        if manifest.columns != self._columns:
            raise JournalError("has other columns than this stage's", file=path, mend=_START_AGAIN)
        data = _checked(path, manifest.sha256)
        # Without threads: a shard is small, and Arrow's pool can abort a process that is ending.
        table = pq.read_table(pa.BufferReader(data), use_threads=False, pre_buffer=False)
        return table.cast(self.schema)

    def drops(self, shard: int) -> list[Drop]:
        """A finished shard's dropped rows, checked against the manifest.

        Raises:
            JournalError: the shard is not finished, or is damaged.
        """
        digest = self.manifest(shard).drops_sha256
        lines = _checked(self._aside_file(shard), digest).splitlines() if digest else []
        return [Drop(**json.loads(line)) for line in lines]

    def digest(self, shard: int) -> str:
        """The SHA-256 of a finished shard's data, for the `depends` of what is made of it."""
        return self.manifest(shard).sha256

    def manifest(self, shard: int) -> Manifest:
        """A finished shard's manifest: its rows, its dropped rows by reason, and what made it.

        Raises:
            JournalError: the shard is not finished.
        """
        path = self._manifest_file(shard)
        if not path.exists():
            raise JournalError("this shard is not finished", file=path, mend=_START_AGAIN)
        manifest = Manifest.read(path)
        if manifest is None:
            raise _damaged(path)
        return manifest

    def shards(self) -> list[int]:
        """The numbers of the finished shards, in order."""
        return sorted(int(p.stem) for p in _shard_files(self.run.manifests(self.name)))

    def finish(self, n_shards: int) -> None:
        """Remove what does not belong: shards beyond the last, and half-written files.

        Raises:
            JournalError: one of the `n_shards` is not finished, or something cannot be removed.
        """
        for shard in range(n_shards):
            self.manifest(shard)
        # Manifests go first: a shard without one does not count, whenever this is cut short.
        for folder in (
            self.run.manifests(self.name),
            self.run.data(self.name),
            self.run.kept_aside(self.name),
        ):
            _remove_from(folder, n_shards)
            self.run.sweep(folder)

    def _fault(self, shard: int, depends: Depends) -> str | None:
        """Why the shard does not hold: None if it does, "" if it was never there."""
        path = self._manifest_file(shard)
        if not path.exists():
            return "it has no manifest" if self._data_file(shard).exists() else ""
        manifest = Manifest.read(path)
        if manifest is None:
            return "its manifest is damaged"
        if manifest.fingerprint != self._fingerprint(depends):
            old = {"columns": manifest.columns, **manifest.depends}
            changed = changes(old, {"columns": self._columns, **depends})
            return "; ".join(changed) or "its manifest is damaged"
        if file_sha256(self._data_file(shard)) != manifest.sha256:
            return "its data is damaged or half redone"
        if file_sha256(self._aside_file(shard)) != manifest.drops_sha256:
            return "its dropped rows are damaged or half redone"
        return None

    def _write_aside(self, shard: int, lines: bytes) -> None:
        path = self._aside_file(shard)
        if lines:
            self.run.write_bytes(path, lines)
        else:  # an earlier attempt may have dropped rows
            with os_errors(path, "written"):
                path.unlink(missing_ok=True)

    def _parquet(self, table: pa.Table) -> bytes:
        """The table as Parquet; the same rows give the same bytes however they are chunked."""
        if not table.schema.equals(self.schema):
            raise ValueError(f"{self.name} has columns {self.schema}, not {table.schema}")
        plain = table.combine_chunks().replace_schema_metadata(None)
        out = pa.BufferOutputStream()
        pq.write_table(plain, out, compression="zstd", row_group_size=_ROWS_A_GROUP)
        return out.getvalue().to_pybytes()  # type: ignore[no-any-return]

    @property
    def _columns(self) -> list[str]:
        return [f"{f.name}: {f.type}" for f in self.schema]

    def _fingerprint(self, depends: Depends) -> str:
        return fingerprint({"depends": depends, "columns": self._columns})

    def _data_file(self, shard: int) -> Path:
        return self.run.data(self.name) / f"{shard:05d}.parquet"

    def _manifest_file(self, shard: int) -> Path:
        return self.run.manifests(self.name) / f"{shard:05d}.json"

    def _aside_file(self, shard: int) -> Path:
        return self.run.kept_aside(self.name) / f"{shard:05d}.jsonl"


def run_stage(
    stage: Stage,
    jobs: Iterable[tuple[int, Depends]],
    make: Callable[[int], tuple[pa.Table, Iterable[Drop]]],
    notes: Callable[[], Mapping[str, Any]] = dict,
    finished: Callable[[int], None] = lambda _: None,
) -> int:
    """Do the shards of a stage that are not done, in order, and remove what is stale.

    Args:
        stage: where the shards go.
        jobs: each shard, 0 to n-1, with what it depends on.
        make: gives a shard's rows and its dropped rows. It is called only for what is to do, so
            that it can load a model at its first call.
        notes: for the manifest of the shard that was made last.
        finished: is told how many shards of the stage there are, once each is in its place. What
            it raises ends the stage there.

    Returns:
        How many shards were made.

    Raises:
        JournalError: something cannot be read or written. Shards that were finished stay so.
    """
    jobs = list(jobs)
    if sorted(shard for shard, _ in jobs) != list(range(len(jobs))):
        raise ValueError(f"{stage.name}: shards are numbered from 0 without a gap")
    todo = [(shard, depends) for shard, depends in jobs if not stage.done(shard, depends)]
    stage.run.log("stage", stage=stage.name, shards=len(jobs), todo=len(todo))
    for shard, depends in todo:
        start = time.perf_counter()
        table, drops = make(shard)
        stage.write(shard, depends, table, drops, notes())
        seconds = round(time.perf_counter() - start, 3)
        stage.run.log("shard", stage=stage.name, shard=shard, rows=table.num_rows, seconds=seconds)
        finished(shard + 1)
    stage.finish(len(jobs))
    return len(todo)


def _drops_to_jsonl(drops: Sequence[Drop]) -> bytes:
    return "".join(json.dumps(asdict(d), sort_keys=True) + "\n" for d in drops).encode()


def file_sha256(path: Path) -> str | None:
    """The digest of a file, in hex; None if there is no such file.

    Raises:
        JournalError: it cannot be read.
    """
    if not path.exists():
        return None
    with os_errors(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path, sha256: str) -> bytes:
    """A file's bytes, if they are those that were written."""
    with os_errors(path, "read"):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(path)
    return data


def _damaged(path: Path) -> JournalError:
    return JournalError("is not what was written", file=path, mend=_START_AGAIN)


def _shard_files(folder: Path) -> list[Path]:
    return [p for p in folder.glob("*") if p.stem.isdigit()]


def _remove_from(folder: Path, n_shards: int) -> None:
    stale = [p for p in _shard_files(folder) if int(p.stem) >= n_shards]
    with os_errors(folder, "written"):
        for path in stale:
            path.unlink()
        if stale:
            sync_folder(folder)
