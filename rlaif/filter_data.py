"""The filters over any preference data set in TRL's columns: `rlaif filter --data FILE`.

OUT/data/00000.parquet   what is kept, with all its columns
OUT/kept_aside.jsonl     what is dropped, with its place and the reason
OUT/filter.json          the figures
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.anchors import compared_anchors, load_anchors
from rlaif.embed import NOT_TEXT, Embedder
from rlaif.errors import DataError
from rlaif.filters.chain import Filtered, filter_rows, fit_filters, nothing_left
from rlaif.filters.row_texts import with_completion
from rlaif.prompts.rows import BadRow, read_rows
from rlaif.recipe import Anchors, Embedding, Filter
from rlaif.run_folder import RunFolder


def filter_data(
    data: Anchors,
    anchors: Anchors,
    settings: Filter,
    embedding: Embedding,
    out: Path,
    seed: int = 0,
) -> Filtered:
    """Hold a data set against anchors, and write what is kept, what is not, and why.

    Args:
        data: rows in TRL's columns: preference pairs, prompt and completion, messages, text.
        anchors: human texts, in any of these.
        settings: which filters.
        embedding: the model that says how alike texts are; its cache is OUT/embeddings.
        out: a folder.
        seed: of all that is drawn.

    Raises:
        DataError: a source that cannot be used, or nothing is left.
    """
    run = RunFolder(out).create()
    embed = Embedder(**embedding.model_dump(), cache=out / "embeddings")
    gold = compared_anchors(load_anchors(anchors)[0], settings.compare, anchors)
    places, rows = _read(data)
    found = filter_rows(rows, places, fit_filters(settings, gold, embed, seed), embed)
    run.write_text(out / "filter.json", json.dumps(dict(found.figures), indent=2) + "\n")
    run.write_text(
        out / "kept_aside.jsonl",
        "".join(json.dumps(asdict(drop)) + "\n" for drop in found.drops),
    )
    if not found.kept:
        raise nothing_left(found, "filter")
    run.write_bytes(out / "data" / "00000.parquet", _parquet(_kept(rows, found, settings)))
    return found


def _kept(
    rows: Sequence[Mapping[str, Any] | BadRow], found: Filtered, settings: Filter
) -> list[Mapping[str, Any]]:
    remove = settings.density is not None and settings.density.remove
    kept = list[Mapping[str, Any]]()
    for i in found.kept:
        row = rows[i]
        assert not isinstance(row, BadRow)  # such a row is a drop
        shorter = found.shortened.get(i) if remove and "completion" in row else None
        kept.append(row if shorter is None else with_completion(row, shorter))
    return kept


def _read(source: Anchors) -> tuple[list[str], list[Mapping[str, Any] | BadRow]]:
    places, rows = [], []
    for place, row in read_rows(source):
        places.append(place)
        rows.append(row if isinstance(row, BadRow) or _is_text(row) else BadRow(NOT_TEXT))
        if len(rows) == source.limit:
            break
    if not rows:
        raise DataError("holds no rows", file=source.path or source.dataset, mend="give some")
    return places, rows


def _is_text(value: object) -> bool:
    """Whether every string in it is one that UTF-8, and so a file, can hold."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, Mapping):
        return all(map(_is_text, value.values()))
    return all(map(_is_text, value)) if isinstance(value, list) else True


def _parquet(rows: list[Mapping[str, Any]]) -> bytes:
    out = pa.BufferOutputStream()
    columns = list(dict.fromkeys(key for row in rows for key in row))  # rows may lack some
    table = pa.table({key: [row.get(key) for row in rows] for key in columns})
    pq.write_table(table, out, compression="zstd")
    return bytes(out.getvalue().to_pybytes())
