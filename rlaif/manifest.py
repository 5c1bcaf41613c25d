"""What a shard was made of, and what it then was: the small JSON file beside each Parquet shard.

The journal writes a manifest last, and by it alone decides whether a shard still holds. It holds
no times and no paths: equal work gives equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif.errors import JournalError
from rlaif.run_folder import os_errors

FORMAT = 1
"""The version of the manifests; raise it when an older program could misread a newer one."""

_LONGEST_VALUE = 40

Depends = Mapping[str, Any]
"""All that decides a shard's content, as plain JSON: settings, fingerprints, digests, seeds."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One shard's manifest.

    Attributes:
        fingerprint: of `depends` and `columns`; what decides whether the shard still holds.
        depends: as given, so that a difference can be shown.
        columns: name and type of each, in order ("record_id: string").
        rows: how many the Parquet file has.
        bytes: the size of the Parquet file.
        sha256: of the Parquet file, 64 hex digits.
        dropped: how many rows were dropped, by reason.
        drops_sha256: of the file of dropped rows; None where there is none.
        notes: what another attempt at this shard may not repeat, such as that memory ran out, or
            what else was asked in the same call.
    """

    fingerprint: str
    depends: Depends
    columns: list[str]
    rows: int
    bytes: int
    sha256: str
    dropped: Mapping[str, int]
    drops_sha256: str | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """The manifest as text, its keys sorted."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.dumps(values, sort_keys=True, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """The manifest in a file; None if the file is damaged.

        Raises:
            JournalError: it is of a newer version, or there is no reading it.
        """
        with os_errors(path, "read"):
            data = path.read_bytes()
        try:
            values = json.loads(data)
            newer = values["format"] > FORMAT
        except (ValueError, KeyError, TypeError):
            return None
        if newer:
            raise JournalError(
                f"was written by a newer rlaif, whose format this one ({FORMAT}) does not know",
                file=path,
                key="format",
                value=values["format"],
                mend="upgrade rlaif, or name another run folder",
            )
        names = {f.name for f in dataclasses.fields(cls)}
        whole = names - {"notes"} <= values.keys() <= names and isinstance(values["depends"], dict)
        return cls(**values) if whole else None


def changes(old: Depends, new: Depends) -> list[str]:
    """What differs between two mappings, a phrase a key ("sample.n was 2, is 4")."""
    before, after = _leaves(old), _leaves(new)
    return [
        f"{key} was {_short(before.get(key))}, is {_short(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _short(text: str | None) -> str:
    if text is None:
        return "absent"
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _leaves(value: object, key: str = "") -> dict[str, str]:
    """Dotted key → value as JSON. JSON, since a tuple that was written is a list when read."""
    if not isinstance(value, Mapping) or not value:
        return {key: json.dumps(value, sort_keys=True)}
    leaves: dict[str, str] = {}
    for name, inner in value.items():
        leaves |= _leaves(inner, f"{key}.{name}" if key else str(name))
    return leaves
