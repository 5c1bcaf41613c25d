"""The rows of a file, a folder or a dataset, one at a time, each with its place.

Under load.py, which decides what a usable prompt is. Only a JSON list is read as a whole; the
rest streams, however large. A row that cannot be read is handed on as a `BadRow`, not raised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.errors import DataError
from rlaif.recipe import Anchors, Prompts

Values = Mapping[str, Any]

_BOM = b"\xef\xbb\xbf"
_PARQUET_BATCH = 256
_FOLDER_KINDS = (".parquet", ".jsonl")
_SAVED_DATASET = ("dataset_dict.json", "state.json")


class BadRow(Exception):
    """A row that cannot be used: why, in words that many rows share, and the detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


Row = tuple[str, Values | BadRow]
"""Where the row stands ("prompts.jsonl:12": lines and rows count from 1), and what it says."""


def read_rows(source: Prompts | Anchors) -> Iterator[Row]:
    """The rows of a source, in order. Files of a folder are taken by name.

    Of prompts only their column is read; of anchors all columns.

    Raises:
        DataError: the source is not there, is of a kind that is not known, or cannot be read; a
            Parquet file or a dataset has no such column.
    """
    column = source.column if isinstance(source, Prompts) else None
    if source.dataset is not None:
        yield from _dataset_rows(source.dataset, source, column)
        return
    path = Path(source.path or "")
    with _readable(path):
        if not path.exists():
            raise DataError("no such file or folder", file=path, mend="name one that exists")
        if not path.is_dir():
            yield from _file_rows(path, column)
        elif _is_saved_dataset(path):
            yield from _dataset_rows(str(path), source, column)
        else:
            yield from _folder_rows(path, column)


def read_file_rows(path: Path) -> Iterator[Row]:
    """The rows of a file or folder with all their columns.

    Raises:
        DataError: it is not there, is of a kind that is not known, or cannot be read.
    """
    with _readable(path):
        if not path.exists():
            raise DataError("no such file or folder", file=path, mend="name one that exists")
        yield from _folder_rows(path, None) if path.is_dir() else _file_rows(path, None)


def _folder_rows(folder: Path, column: str | None) -> Iterator[Row]:
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in _FOLDER_KINDS]
    if not files:
        raise DataError(
            "holds no .parquet and no .jsonl file",
            file=folder,
            mend="name the folder that holds the files itself",
        )
    for path in files:
        yield from _file_rows(path, column)


def _file_rows(path: Path, column: str | None) -> Iterator[Row]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        kinds = ", ".join(_READERS)
        raise DataError(
            "is of a kind that cannot be read", file=path, mend=f"use one of {kinds}, or a folder"
        )
    with _readable(path):
        yield from reader(path, column)


def _jsonl_rows(path: Path, column: str | None) -> Iterator[Row]:
    for number, line in _lines(path):
        yield f"{path.name}:{number}", _parsed(line)


def _text_rows(path: Path, column: str | None) -> Iterator[Row]:
    for number, line in _lines(path):
        try:
            yield f"{path.name}:{number}", {column or "text": line.decode().strip()}
        except UnicodeDecodeError as error:
            yield f"{path.name}:{number}", BadRow("not UTF-8", str(error))


def _json_rows(path: Path, column: str | None) -> Iterator[Row]:
    mend = 'give one list of objects like {"prompt": "…"}; a file with one a line ends in .jsonl'
    try:
        rows = json.loads(path.read_bytes().removeprefix(_BOM))
    except json.JSONDecodeError as error:
        what = f"is not valid JSON: {error.msg}"
        raise DataError(what, file=path, line=error.lineno, mend=mend) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"is not valid JSON: {error}", file=path, mend=mend) from error
    if not isinstance(rows, list):
        raise DataError("is not a JSON list", file=path, mend=mend)
    for number, row in enumerate(rows, 1):
        yield f"{path.name}:{number}", _as_object(row)


def _parquet_rows(path: Path, column: str | None) -> Iterator[Row]:
    number = 0
    with pq.ParquetFile(path) as file:
        columns = list(file.schema_arrow.names) if column is None else [column]
        _need_column(path, columns[0], file.schema_arrow.names)
        for batch in file.iter_batches(_PARQUET_BATCH, columns=columns, use_threads=False):
            for scalars in zip(*batch.columns, strict=True):
                number += 1
                yield f"{path.name}:{number}", _from_arrow(dict(zip(columns, scalars, strict=True)))


def _dataset_rows(name: str, source: Prompts | Anchors, column: str | None) -> Iterator[Row]:
    dataset = _load_dataset(name, source)
    rows = dataset.with_format(None)
    if column is not None:
        _need_column(name, column, dataset.column_names)
        rows = rows.select_columns(column)
    label = Path(name).name if Path(name).exists() else name
    for number, row in enumerate(rows, 1):
        yield f"{label}:{number}", row


def _load_dataset(name: str, source: Prompts | Anchors) -> Any:
    import datasets

    try:
        if not _is_saved_dataset(Path(name)):
            return datasets.load_dataset(name, source.config, split=source.split)
        saved = datasets.load_from_disk(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        mend = "see that name, config and split are right and the hub can be reached"
        raise DataError(f"cannot be loaded: {said}", file=name, mend=mend) from error
    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if source.split not in saved:
        mend = f"name one of: {', '.join(saved)}"
        raise DataError("no such split", file=name, key="split", value=source.split, mend=mend)
    return saved[source.split]


def _is_saved_dataset(folder: Path) -> bool:
    return any((folder / name).exists() for name in _SAVED_DATASET)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers, without a byte-order mark."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(_BOM) if number == 1 else line
            if line.strip():
                yield number, line


def _parsed(line: bytes) -> Values | BadRow:
    try:
        return _as_object(json.loads(line.decode()))
    except UnicodeDecodeError as error:
        return BadRow("not UTF-8", str(error))
    except json.JSONDecodeError as error:
        return BadRow("not valid JSON", f"{error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        return BadRow("not valid JSON", str(error))


def _as_object(row: object) -> Values | BadRow:
    return row if isinstance(row, dict) else BadRow("not a JSON object", type(row).__name__)


def _from_arrow(scalars: Mapping[str, pa.Scalar]) -> Values | BadRow:
    try:
        return {column: scalar.as_py() for column, scalar in scalars.items()}
    except UnicodeDecodeError as error:
        return BadRow("not UTF-8", str(error))


def _need_column(file: str | Path, column: str, names: Sequence[str]) -> None:
    if column not in names:
        mend = f"name one of: {', '.join(names)}"
        raise DataError("no such column", file=file, key="column", value=column, mend=mend)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        said = str(error).partition("\n")[0]
        raise DataError(f"cannot be read: {said}", file=path, mend="check the file") from error


_READERS: dict[str, Callable[[Path, str | None], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
