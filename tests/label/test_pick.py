from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.constitution import Constitution, Principle
from rlaif.errors import RecipeError
from rlaif.label.pick import pick_pairs, pick_sft
from rlaif.label.rows import SFT_SCHEMA, Row, pair_schema
from rlaif.records import Record, Response, sigmoid
from tests.label.scripted_judges import (
    make_record,
    pick_settings,
    rules,
    texts_of,
    with_log_odds,
)

HOW = {"mode": "pointwise", "clip": 0.001, "judge": "a judge"}


def pairs_of(record: Record, constitution: Constitution, **settings: object) -> list[Row]:
    return pick_pairs([record], constitution, pick_settings(**settings), **HOW)[0]  # type: ignore[arg-type]


def sft_of(record: Record, constitution: Constitution, **settings: object) -> list[Row]:
    return pick_sft([record], constitution, pick_settings(**settings), **HOW)[0]  # type: ignore[arg-type]


def directions(rows: Sequence[Row]) -> dict[frozenset[str], str]:
    """The chosen text of each two texts."""
    pairs = texts_of(rows, "chosen", "rejected")
    return {frozenset(pair): pair[0] for pair in pairs}


def test_a_pair_says_what_was_decided_by_whom() -> None:
    record = with_log_odds(make_record("a", "b c"), [[-1.0, 1.0]])
    [row] = pairs_of(record, rules(1))
    assert row == {
        "prompt": [{"role": "user", "content": "What is a tide?"}],
        "chosen": [{"role": "assistant", "content": "b c"}],
        "rejected": [{"role": "assistant", "content": "a"}],
        "score_margin": 2.0,
        "concession": 0.0,
        "chosen_probability": pytest.approx(sigmoid(2.0)),
        "probability_calibrated": False,
        "record_id": record.id,
        "chosen_index": 1,
        "rejected_index": 0,
        "constitution": rules(1).fingerprint,
        "judge": "a judge",
    }


def test_a_pair_says_what_the_rejected_response_did_better() -> None:
    record = with_log_odds(make_record("a", "b"), [[3.0, 0.0], [-2.0, -0.5], [0.0, 1.0]])
    [row] = pairs_of(record, rules(3))
    assert row["chosen_index"] == 0
    assert row["score_margin"] == pytest.approx(0.5)
    assert row["concession"] == pytest.approx(1.5)  # under the second principle; 1.0 the third


def test_an_sft_row_is_the_best_response() -> None:
    record = with_log_odds(make_record("a", "b c", "d"), [[-1.0, 1.0, 0.0]])
    [row] = sft_of(record, rules(1))
    assert row == {
        "prompt": [{"role": "user", "content": "What is a tide?"}],
        "completion": [{"role": "assistant", "content": "b c"}],
        "score": 1.0,
        "score_margin": 1.5,
        "record_id": record.id,
        "response_index": 1,
        "constitution": rules(1).fingerprint,
        "judge": "a judge",
    }


def test_margin_is_a_column_only_if_asked_for() -> None:
    record = with_log_odds(make_record("a", "b"), [[-1.0, 1.0]])
    [row] = pairs_of(record, rules(1), write_margin=True)
    assert row["margin"] == row["score_margin"] == 2.0
    assert "margin" not in pair_schema(False).names
    assert not pair_schema(True).field("margin").nullable


def test_every_record_gives_rows_or_a_reason() -> None:
    records = [
        with_log_odds(make_record("a", "b", prompt=str(n)), [odds])
        for n, odds in enumerate([[1.0, 0.0], [1.0, 1.0], [None, None], [0.0, 0.2]])
    ]
    settings = pick_settings(pair_margin=1.0, min_margin=1.0)
    for pick, stage in ((pick_pairs, "pairs"), (pick_sft, "sft")):
        rows, drops = pick(records, rules(1), settings, **HOW)  # type: ignore[arg-type]
        assert [row["record_id"] for row in rows] == [records[0].id]
        assert [(d.id, d.stage, d.reason) for d in drops] == [
            (records[1].id, stage, "tie"),
            (records[2].id, stage, "all abstained"),
            (records[3].id, stage, "margin under 1.0"),
        ]


def test_a_veto_in_pairwise_mode_is_refused() -> None:
    for pick in (pick_pairs, pick_sft):
        with pytest.raises(RecipeError, match=r"judge\.mode"):
            pick([], rules(1, veto=True), pick_settings(), mode="pairwise", clip=0.01, judge="")


def written_and_loaded(rows: list[Row], schema: pa.Schema, folder: Path) -> Any:
    import datasets

    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "data/00000.parquet")
    return datasets.load_dataset(
        str(folder / "data"), split="train", cache_dir=str(folder / "cache")
    )


def chat_type() -> Any:
    from datasets import List, Value

    return List({"role": Value("string"), "content": Value("string")})


@pytest.mark.parametrize("write_margin", [False, True])
def test_a_folder_of_pairs_loads_as_a_dataset(tmp_path: Path, write_margin: bool) -> None:
    record = with_log_odds(make_record("a", "b"), [[-1.0, 1.0]])
    rows = pairs_of(record, rules(1), write_margin=write_margin)
    loaded = written_and_loaded(rows, pair_schema(write_margin), tmp_path)
    assert loaded[0] == rows[0]
    assert loaded.column_names == pair_schema(write_margin).names
    assert {loaded.features[c] == chat_type() for c in ("prompt", "chosen", "rejected")} == {True}
    assert {
        name: feature.dtype
        for name, feature in loaded.features.items()
        if name not in ("prompt", "chosen", "rejected")
    } == {
        "score_margin": "float64",
        "concession": "float64",
        "chosen_probability": "float64",
        "probability_calibrated": "bool",
        "record_id": "string",
        "chosen_index": "int64",
        "rejected_index": "int64",
        "constitution": "string",
        "judge": "string",
    } | ({"margin": "float64"} if write_margin else {})


def test_a_folder_of_sft_rows_loads_as_a_dataset(tmp_path: Path) -> None:
    record = with_log_odds(make_record("a", "b"), [[-1.0, 1.0]])
    rows = sft_of(record, rules(1))
    loaded = written_and_loaded(rows, SFT_SCHEMA, tmp_path)
    assert loaded[0] == rows[0]
    assert loaded.column_names == SFT_SCHEMA.names
    assert loaded.features["prompt"] == loaded.features["completion"] == chat_type()


# Verdicts on a grid: what the properties say of margins does not hang on the last bit.
ODDS = st.integers(-12, 12).map(lambda n: n / 4)
TEXTS = st.lists(st.sampled_from(["a", "a ", "b b", "c", "d d d", "", "e"]), min_size=2, max_size=5)
HOW_TO_PAIR = st.sampled_from(["best_worst", "best_random", "all"])
SHORTER = st.sampled_from([None, 0.0, 0.5, 2.0])


@st.composite
def judged_records(draw: st.DrawFn) -> tuple[Record, list[list[float | None]]]:
    """A record with verdicts on two principles, some of them abstentions, and those verdicts."""
    texts = draw(TEXTS)
    cut = draw(st.sampled_from([*texts, "none"]))
    responses = tuple(Response(t, len(t.split()), "length" if t == cut else "stop") for t in texts)
    said = {text: [draw(st.none() | ODDS) for _ in range(2)] for text in sorted(set(texts))}
    table = [[said[text][p] for text in texts] for p in range(2)]
    return with_log_odds(make_record().with_(responses=responses), table), table


CONSTITUTIONS = st.sampled_from(
    [
        rules(2),
        rules(2, veto=True),
        Constitution(
            name="x",
            principles=(
                rules(2, weight=3.0).principles[0],
                rules(2, veto=True).principles[1],
            ),
        ),
    ]
)


@settings(deadline=None)
@given(judged_records(), CONSTITUTIONS, HOW_TO_PAIR, SHORTER, st.data())
def test_the_order_of_the_responses_decides_nothing(
    case: tuple[Record, list[list[float | None]]],
    constitution: Constitution,
    pairs: str,
    shorter: float | None,
    data: st.DataObject,
) -> None:
    record, table = case
    order = data.draw(st.permutations(range(len(record.responses))))
    turned = with_log_odds(
        record.with_(responses=tuple(record.responses[i] for i in order)),
        [[row[i] for i in order] for row in table],
    )
    how = {"pairs": pairs, "prefer_shorter_within": shorter, "min_decided": 0.5}
    for pick, columns in ((pairs_of, ("chosen", "rejected")), (sft_of, ("completion",))):
        here, there = (pick(r, constitution, **how) for r in (record, turned))
        assert sorted(texts_of(here, *columns)) == sorted(texts_of(there, *columns))
        assert sorted(r["score_margin"] for r in here) == sorted(r["score_margin"] for r in there)


@settings(deadline=None)
@given(judged_records(), CONSTITUTIONS, HOW_TO_PAIR, SHORTER)
def test_what_holds_for_every_row(
    case: tuple[Record, list[list[float | None]]],
    constitution: Constitution,
    pairs: str,
    shorter: float | None,
) -> None:
    record, _ = case
    how = {"pairs": pairs, "prefer_shorter_within": shorter, "min_decided": 0.5}
    rows = pairs_of(record, constitution, **how)
    for row in rows:
        assert row["score_margin"] > 0
        assert 0.5 < row["chosen_probability"] < 1
    for chosen, rejected in texts_of(rows, "chosen", "rejected"):
        assert chosen.split() != rejected.split()
    picked = [record.responses[r["chosen_index"]] for r in rows]
    picked += [record.responses[r["response_index"]] for r in sft_of(record, constitution, **how)]
    assert all(r.text.strip() and r.finish == "stop" for r in picked)


@settings(deadline=None)
@given(judged_records(), CONSTITUTIONS, HOW_TO_PAIR, st.booleans(), st.sampled_from([0.1, 0.5, 1]))
def test_a_principle_that_says_nothing_turns_no_pair_round(
    case: tuple[Record, list[list[float | None]]],
    constitution: Constitution,
    pairs: str,
    veto: bool,
    min_decided: float,
) -> None:
    record, _ = case
    silent = Principle(id="silent", text="Say nothing.", veto=veto)
    more = Constitution(name="x", principles=(*constitution.principles, silent))
    before = directions(pairs_of(record, constitution, pairs="all", min_decided=min_decided))
    after = directions(pairs_of(record, more, pairs=pairs, min_decided=min_decided))
    assert after.items() <= before.items()


@settings(deadline=None)
@given(judged_records(), CONSTITUTIONS, HOW_TO_PAIR, st.sampled_from([0.125, 0.5, 3.0, 40.0]))
def test_weights_in_another_unit_turn_no_pair_round(
    case: tuple[Record, list[list[float | None]]],
    constitution: Constitution,
    pairs: str,
    factor: float,
) -> None:
    record, _ = case
    scaled = Constitution(
        name="x",
        principles=tuple(
            p.model_copy(update={"weight": p.weight * factor}) for p in constitution.principles
        ),
    )
    before = directions(pairs_of(record, constitution, pairs="all"))
    after = directions(pairs_of(record, scaled, pairs=pairs))
    assert after.items() <= before.items()
    assert after == before or pairs != "all"
