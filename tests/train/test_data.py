from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.errors import DataError
from rlaif.recipe import PairChoice
from rlaif.train.data import check, choice_columns, choose, hold_out, load
from tests.train.tiny_run import pairs, write_rows

COLUMNS = ["prompt", "chosen", "rejected", "chosen_probability"]
RECIPE = Path("recipe.yaml")


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


@pytest.mark.parametrize("bad", [None, math.nan, -0.01, 1.01, math.inf])
def test_a_label_that_is_no_probability_is_named_by_file_and_row(tmp_path: Path, bad: Any) -> None:
    rows = pairs(6)
    rows[4]["chosen_probability"] = bad
    write_rows(tmp_path, rows, shards=2)
    with pytest.raises(DataError) as error:
        check(files(tmp_path), COLUMNS, RECIPE)
    assert "00001.parquet" in str(error.value)
    assert "chosen_probability" in str(error.value)
    assert "row 2" in str(error.value)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_labels_are_probabilities(tmp_path: Path, p: float) -> None:
    write_rows(tmp_path, pairs(4, chosen_probability=[p] * 4))
    check(files(tmp_path), COLUMNS, RECIPE)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
@pytest.mark.parametrize("column", ["margin", "score_margin", "concession"])
def test_a_margin_that_is_no_number_is_refused(tmp_path: Path, column: str, bad: Any) -> None:
    write_rows(tmp_path, pairs(4, **{column: [1.0, 2.0, bad, 3.0]}), shards=1)
    with pytest.raises(DataError, match=f"{column}.*row 3"):
        check(files(tmp_path), [*COLUMNS, column], RECIPE)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "chosen_probability"} for row in pairs(4)]
    write_rows(tmp_path, rows)
    with pytest.raises(DataError, match=r"chosen_probability: no such column"):
        check(files(tmp_path), COLUMNS, RECIPE)


def test_files_without_rows_name_the_command_to_run(tmp_path: Path) -> None:
    write_rows(tmp_path, pairs(1), shards=1)
    pq.write_table(pq.read_table(files(tmp_path)[0]).slice(0, 0), files(tmp_path)[0])
    with pytest.raises(DataError, match=r"rlaif label recipe\.yaml"):
        check(files(tmp_path), COLUMNS, RECIPE)


def test_a_shard_of_which_nothing_was_picked_is_no_hindrance(tmp_path: Path) -> None:
    """`datasets` by itself fails at a file without rows."""
    write_rows(tmp_path / "data", pairs(6), shards=3)
    for file in files(tmp_path / "data")[::2]:
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    assert len(load(files(tmp_path / "data"), COLUMNS, tmp_path / "cache")) == 2


def test_only_the_columns_asked_for_leave(tmp_path: Path) -> None:
    write_rows(tmp_path / "data", pairs(6, margin=[1.0] * 6), shards=3)
    rows = load(files(tmp_path / "data"), COLUMNS, tmp_path / "cache")
    assert rows.column_names == COLUMNS
    assert rows["prompt"][:] == [row["prompt"] for row in pairs(6)]


PAIRS = Dataset.from_dict(
    {"score_margin": [1.0, 2.0, 3.0, 4.0], "concession": [0.0, 0.5, 0.0, 0.6]}
)


@pytest.mark.parametrize(
    ("wanted", "margins"),
    [
        ({}, [1.0, 2.0, 3.0, 4.0]),
        ({"max_margin": 3.0}, [1.0, 2.0, 3.0]),
        ({"max_concession": 0.0}, [1.0, 3.0]),
        ({"max_concession": 0.5, "max_margin": 2.0}, [1.0, 2.0]),
        ({"limit": 9}, [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_the_pairs_that_a_stage_takes(wanted: dict[str, float], margins: list[float]) -> None:
    choice = PairChoice.model_validate(wanted)
    rows = PAIRS.select_columns(choice_columns(choice)) if wanted.keys() - {"limit"} else PAIRS
    assert [PAIRS["score_margin"][i] for i in _places(rows, choice)] == margins


def _places(rows: Dataset, choice: PairChoice) -> list[int]:
    numbered = rows.add_column("place", list(range(len(rows))))
    return list(choose(numbered, choice, 0, "train.dpo_pairs")["place"])


def test_a_limit_draws_by_the_seed_and_keeps_the_order() -> None:
    rows = Dataset.from_dict({"place": list(range(100))})
    draws = [choose(rows, PairChoice(limit=10), seed, "")["place"][:] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert all(len(set(draw)) == 10 and draw == sorted(draw) for draw in draws)
    assert draws[0] != list(range(10))


def test_a_choice_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match=r"train\.dpo_pairs: it leaves none of the 4 pairs"):
        choose(PAIRS, PairChoice(max_margin=0.5), 0, "train.dpo_pairs")


def ids(n: int) -> Dataset:
    """Three rows for each of `n` prompts."""
    return Dataset.from_dict({"record_id": [f"{i // 3:x}" for i in range(3 * n)]})


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), n=st.integers(200, 250))
def test_no_prompt_is_on_both_sides(seed: int, n: int) -> None:
    train, held = hold_out(ids(n), seed)
    assert not set(train["record_id"]) & set(held["record_id"])
    assert len(train) + len(held) == 3 * n
    assert len(held) % 3 == 0  # all rows of a prompt go together


def test_the_same_prompts_are_held_out_of_every_stage() -> None:
    everything = ids(300)
    some = everything.select(range(0, 600))
    _, held = hold_out(everything, 7)
    train, _ = hold_out(some, 7)
    assert not set(train["record_id"]) & set(held["record_id"])


def test_about_one_prompt_in_twenty_is_held_out() -> None:
    _, held = hold_out(ids(4000), 0)
    assert 0.04 < len(held) / 12000 < 0.06


def test_another_seed_holds_out_others() -> None:
    assert set(hold_out(ids(200), 0)[1]["record_id"]) != set(hold_out(ids(200), 1)[1]["record_id"])


def test_too_few_prompts_to_hold_any_out_is_an_error() -> None:
    with pytest.raises(DataError, match="eval_strategy"):
        hold_out(Dataset.from_dict({"record_id": ["a"]}), 0)
