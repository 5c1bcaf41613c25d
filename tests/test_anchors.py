"""Anchors: any of TRL's columns, duplicates and bad rows kept aside, nothing usable is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.anchors import compared_anchors, load_anchors
from rlaif.errors import DataError
from rlaif.filters.row_texts import RowTexts
from rlaif.recipe import Anchors

ROWS = [
    {"prompt": "Is it late?", "completion": "Yes."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
    {"prompt": "Is it late?", "completion": "Yes."},
    {"score": 3},
    {"prompt": " ", "completion": ""},
    {"text": "A line."},
]


def source(folder: Path, rows: list[dict[str, object]], **more: int) -> Anchors:
    file = folder / "anchors.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Anchors(path=str(file), **more)  # type: ignore[arg-type]


def test_rows_of_every_form_are_read_and_the_rest_is_kept_aside(tmp_path: Path) -> None:
    found, drops = load_anchors(source(tmp_path, ROWS))
    assert found == [
        RowTexts("Is it late?", "Yes."),
        RowTexts("Hi", "Hello."),
        RowTexts("", "A line."),
    ]
    assert [(d.id, d.reason) for d in drops] == [
        ("anchors.jsonl:3", "duplicate anchor"),
        ("anchors.jsonl:4", "no column of a training row"),
        ("anchors.jsonl:5", "empty text"),
    ]


def test_a_limit_counts_usable_rows(tmp_path: Path) -> None:
    assert len(load_anchors(source(tmp_path, ROWS[2:] + ROWS[:2], limit=2))[0]) == 2


def test_no_usable_row_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column of a training row in 2 of 2 rows") as caught:
        load_anchors(source(tmp_path, [{"score": 1}, {"score": 2}]))
    assert caught.value.mend


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no anchors"):
        load_anchors(source(tmp_path, []))


def test_anchors_without_prompts_cannot_be_compared_by_them(tmp_path: Path) -> None:
    where = source(tmp_path, [{"text": "A line."}, {"text": "Two."}])
    anchors, _ = load_anchors(where)
    assert compared_anchors(anchors, "both", where) == ["A line.", "Two."]
    with pytest.raises(DataError, match="the anchors have no prompt"):
        compared_anchors(anchors, "prompt", where)
