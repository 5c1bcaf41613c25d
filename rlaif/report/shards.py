"""What of a stage is finished, read without the run's lock.

The journal refuses a damaged shard; a reader beside a running job meets shards that are just being
replaced. Here such a shard is not there yet: it counts only if its bytes are those that its
manifest names.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.manifest import Manifest
from rlaif.run_folder import RunFolder


class Shard(NamedTuple):
    """A finished shard: its number, its rows, and what its manifest says."""

    number: int
    table: pa.Table
    manifest: Manifest


def manifests(run: RunFolder, stage: str) -> dict[int, Manifest]:
    """The manifests of a stage's finished shards, by number, in order.

    Raises:
        JournalError: one is of a newer version.
    """
    found = {}
    for path in sorted(run.manifests(stage).glob("*.json")):
        manifest = _manifest(path) if path.stem.isdigit() else None
        if manifest is not None:
            found[int(path.stem)] = manifest
    return found


def read_shards(
    run: RunFolder, stage: str, columns: Sequence[str] | None = None
) -> Iterator[Shard]:
    """The finished shards of a stage, in order.

    Args:
        run: the run folder.
        stage: the stage's name, as the journal has it.
        columns: those to read; None reads all. One that a shard lacks is left out.
    """
    for number, manifest in manifests(run, stage).items():
        table = _table(run.data(stage) / f"{number:05d}.parquet", manifest.sha256, columns)
        if table is not None:
            yield Shard(number, table, manifest)


def read_drops(run: RunFolder, stage: str, number: int, manifest: Manifest) -> list[dict[str, str]]:
    """The dropped rows of a finished shard, with the keys of `Drop`."""
    data = _bytes(run.kept_aside(stage) / f"{number:05d}.jsonl", manifest.drops_sha256)
    return [] if data is None else [json.loads(line) for line in data.splitlines()]


def stages_under(run: RunFolder, folder: str) -> list[str]:
    """The names of all stages with a finished shard in a folder of stages, however deep."""
    root = run.root / "manifests"
    places = {path.parent for path in run.manifests(folder).rglob("*.json")}
    return sorted(str(place.relative_to(root)) for place in places)


def dropped(run: RunFolder, stage: str) -> dict[str, int]:
    """How many rows a stage has dropped so far, by reason."""
    counts: Counter[str] = Counter()
    for manifest in manifests(run, stage).values():
        counts.update(manifest.dropped)
    return dict(counts.most_common())


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or none that is whole."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line; a half-written line is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _manifest(path: Path) -> Manifest | None:
    return Manifest.read(path) if path.exists() else None


def _table(path: Path, sha256: str, columns: Sequence[str] | None) -> pa.Table | None:
    data = _bytes(path, sha256)
    if data is None:
        return None
    wanted = None if columns is None else list(columns)
    return pq.ParquetFile(pa.BufferReader(data)).read(columns=wanted, use_threads=False)


def _bytes(path: Path, sha256: str | None) -> bytes | None:
    """A file's bytes, if they are those that the manifest names."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None
