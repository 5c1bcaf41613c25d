"""Embeddings on disk, found again by the SHA-256 of the text: one SQLite file a model.

A file that is not whole after a crash cannot be: SQLite commits, or does not.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlaif.errors import DataError

Entry = tuple[NDArray[np.float32], bool]
"""A vector, and whether the model read only the beginning of the text."""

_AT_ONCE = 500  # parameters of one SQL statement


class EmbeddingCache:
    """What one model has embedded.

    Args:
        folder: where the file lies; it is made.
        model: fingerprint of the model, and the file's name.
        width: numbers in a vector.

    Raises:
        DataError: the file holds vectors of another width, or is no such file.
    """

    def __init__(self, folder: Path, model: str, width: int) -> None:
        self._file, self._width = folder / f"{model}.sqlite", width
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot be made: {error.strerror}", file=folder, mend="name another folder"
            ) from error
        with self._open() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS embeddings "
                "(text BLOB PRIMARY KEY, vector BLOB NOT NULL, truncated INTEGER NOT NULL) "
                "WITHOUT ROWID"
            )
            one = database.execute("SELECT length(vector) FROM embeddings LIMIT 1").fetchone()
        if one is not None:
            self._check(one[0])

    def get(self, texts: Sequence[str]) -> dict[str, Entry]:
        """What is kept of these texts.

        Raises:
            DataError: the file cannot be read, or a vector in it is of another width.
        """
        keys = {_key(text): text for text in texts}
        found: dict[str, Entry] = {}
        with self._open() as database:
            for some in _cut(list(keys)):
                marks = ",".join("?" * len(some))
                rows = database.execute(
                    f"SELECT text, vector, truncated FROM embeddings WHERE text IN ({marks})", some
                )
                for key, vector, truncated in rows:
                    found[keys[key]] = self._vector(vector), bool(truncated)
        return found

    def put(self, texts: Sequence[str], entries: Sequence[Entry]) -> None:
        """Keep the vectors of these texts; one that is kept already stays.

        Raises:
            DataError: the file cannot be written.
        """
        rows = [
            (_key(text), np.ascontiguousarray(vector, np.float32).tobytes(), int(truncated))
            for text, (vector, truncated) in zip(texts, entries, strict=True)
        ]
        with self._open() as database:
            database.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?, ?)", rows)

    def _vector(self, stored: bytes) -> NDArray[np.float32]:
        self._check(len(stored))
        return np.frombuffer(stored, np.float32)

    def _check(self, length: int) -> None:
        if length != 4 * self._width:
            raise DataError(
                f"holds an embedding of width {length / 4:g}; the model's is {self._width}",
                file=self._file, mend="remove the file, or name another folder",
            )  # fmt: skip

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._file, timeout=60)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise DataError(
                f"is no cache of embeddings: {error}", file=self._file,
                mend="remove the file, or name another folder",
            ) from error  # fmt: skip


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _cut(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]
