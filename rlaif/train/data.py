"""The picks and pairs of a run → datasets that TRL takes; bad rows found, held-out rows set aside.

RUN/data/{sft,pairs}/*.parquet → check → load → choose → hold_out → trainer

Only the columns that a trainer is meant to see leave this module: what a trainer makes of others
(a `margin` of the reward trainer's, say) is then no question.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, load_dataset

from rlaif.errors import DataError
from rlaif.recipe import PairChoice
from rlaif.records import seed_of
from rlaif.run_folder import os_errors
from rlaif.train.plan import HELD_OUT

ID = "record_id"
PROBABILITY = "chosen_probability"
MARGIN = "margin"
SCORE_MARGIN, CONCESSION = "score_margin", "concession"
_NUMBERS = {PROBABILITY, MARGIN, SCORE_MARGIN, CONCESSION}


def columns_of(files: Sequence[Path]) -> list[str]:
    """The columns of the first file; all files of a stage have the same."""
    with os_errors(files[0], "read"):
        return list(pq.read_schema(files[0]).names)


def check(files: Sequence[Path], columns: Sequence[str], recipe_file: Path) -> None:
    """Make sure that there are rows, and that every row can be trained on.

    Raises:
        DataError: no rows; a column that is not there; a null in one; a probability outside 0
            to 1, or a margin or concession that is no finite number. Names the file and the row,
            from 1.
    """
    rows = sum(_check_file(file, columns) for file in files)
    if rows == 0:
        raise DataError(
            "no rows to train on",
            file=files[0].parent,
            mend=f"see RUN/kept_aside for why, and run: rlaif label {recipe_file}",
        )


def _check_file(file: Path, columns: Sequence[str]) -> int:
    with os_errors(file, "read"):
        table = pq.read_table(file)
    for column in columns:
        if column not in table.column_names:
            raise DataError("no such column", file=file, key=column, mend="label again")
        if table[column].null_count:
            row = table[column].is_null().to_pylist().index(True)
            raise _bad_row(file, row, column, None)
    for column in (one for one in columns if one in _NUMBERS):
        for row, value in enumerate(table[column].to_pylist()):
            in_range = column != PROBABILITY or 0 <= value <= 1
            if not (in_range and math.isfinite(value)):
                raise _bad_row(file, row, column, value)
    return int(table.num_rows)


def _bad_row(file: Path, row: int, column: str, value: object) -> DataError:
    wanted = "a probability from 0 to 1" if column == PROBABILITY else "a value"
    return DataError(
        f"not {wanted} in row {row + 1}", file=file, key=column, value=value, mend="label again"
    )


def load(files: Sequence[Path], columns: Sequence[str], cache: Path) -> Dataset:
    """The rows of all files, with these columns. `cache` takes the files that `datasets` writes."""
    # `datasets` reads no file without rows, as a shard is of which nothing was picked.
    filled = [str(f) for f in files if pq.read_metadata(f).num_rows]
    rows = load_dataset("parquet", data_files=filled, split="train", cache_dir=str(cache))
    return rows.select_columns(list(columns))


def choice_columns(choice: PairChoice) -> list[str]:
    """The columns that a choice among pairs looks at."""
    return list(_limits(choice))


def _limits(choice: PairChoice) -> dict[str, float]:
    given = {SCORE_MARGIN: choice.max_margin, CONCESSION: choice.max_concession}
    return {column: most for column, most in given.items() if most is not None}


def choose(rows: Dataset, choice: PairChoice, seed: int, key: str) -> Dataset:
    """The pairs that a stage is trained on, in the order that they were in.

    Args:
        rows: with the columns of `choice_columns`.
        choice: which of them.
        seed: of the draw, where there are more than `choice.limit`.
        key: the choice's place in the recipe, for the error.

    Raises:
        DataError: the choice leaves none.
    """
    kept = list(range(len(rows)))
    for column, most in _limits(choice).items():
        values = rows[column][:]  # read once: a column by itself reads the file for each number
        kept = [i for i in kept if values[i] <= most]
    if not kept:
        raise DataError(
            f"it leaves none of the {len(rows)} pairs", key=key, mend="raise its values"
        )
    if choice.limit is not None and choice.limit < len(kept):
        kept = sorted(random.Random(f"pairs {seed}").sample(kept, choice.limit))
    return rows if len(kept) == len(rows) else rows.select(kept)


def hold_out(rows: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Split the rows by prompt: those to train on, and about one prompt in twenty that is not.

    Which prompts these are follows from the seed and the record's id alone, so that a prompt held
    out of one stage is held out of all.

    Raises:
        DataError: no prompt, or every one, is held out; there are too few.
    """
    held = [held_out(one, seed) for one in rows[ID][:]]
    if not any(held) or all(held):
        raise DataError(
            f"{sum(held)} of {len(held)} rows would be held out for the evaluation",
            mend="take more prompts, or set eval_strategy to no",
        )
    train = rows.select([i for i, out in enumerate(held) if not out])
    return train, rows.select([i for i, out in enumerate(held) if out])


def held_out(record_id: str, seed: int) -> bool:
    """Whether a prompt is kept out of training."""
    return seed_of(seed, "held out", record_id) < HELD_OUT * 2**63
