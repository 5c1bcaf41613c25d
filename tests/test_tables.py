from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.errors import DataError
from rlaif.records import Message, Record, Response, Verdict
from rlaif.tables import (
    SAMPLES,
    VERDICTS,
    join_verdicts,
    records_from_table,
    records_to_table,
    verdicts_from_table,
    verdicts_to_table,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
any_texts = st.text(st.characters(), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | numbers | any_texts
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_texts, inner, max_size=3),
)
messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts)
responses = st.builds(Response, texts, st.integers(0, 10**6), st.sampled_from(["stop", "length"]))
records = st.builds(
    Record,
    id=texts,
    prompt=st.lists(messages, max_size=3).map(tuple),
    responses=st.lists(responses, max_size=3).map(tuple),
    meta=st.dictionaries(any_texts, json_values, max_size=3),
)
said = st.fixed_dictionaries({"log_odds": numbers, "reason": st.none()})
abstained = st.fixed_dictionaries({"log_odds": st.none(), "reason": texts})
verdicts = st.builds(
    lambda outcome, **rest: Verdict(**outcome, **rest),
    outcome=said | abstained,
    principle=texts,
    response=st.integers(0, 10),
    other=st.none() | st.integers(0, 10),
    coverage=st.floats(0, 1),
    order_gap=st.none() | numbers,
    rationale=st.none() | texts,
)


def through_parquet(table):
    file = io.BytesIO()
    pq.write_table(table, file)
    return pq.read_table(io.BytesIO(file.getvalue())).cast(table.schema)


@settings(deadline=None)
@given(st.lists(records, max_size=4), st.integers(0, 10**9))
def test_records_come_back_equal(rows, first) -> None:
    table = through_parquet(records_to_table(rows, first))
    assert table.schema.equals(SAMPLES)
    assert records_from_table(table) == rows
    assert table["index"].to_pylist() == list(range(first, first + len(rows)))


@settings(deadline=None)
@given(st.lists(st.tuples(texts, verdicts), max_size=6))
def test_verdicts_come_back_equal(rows) -> None:
    table = through_parquet(verdicts_to_table(rows))
    assert table.schema.equals(VERDICTS)
    assert verdicts_from_table(table) == rows


@settings(deadline=None)
@given(any_texts)
def test_a_lone_surrogate_becomes_the_replacement_character(text: str) -> None:
    record = Record("r", (Message("user", text),), (Response(text, 1, "stop"),))
    (back,) = records_from_table(records_to_table([record]))
    expected = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    assert back.responses[0].text == back.prompt[0].text == expected
    verdict = Verdict("p", 0, None, None, 0.0, reason=text, rationale=text)
    ((_, same),) = verdicts_from_table(verdicts_to_table([("r", verdict)]))
    assert same.reason == same.rationale == expected


@pytest.mark.parametrize(
    "meta", [{"a": (1,)}, {1: "a"}, {"a": float("nan")}, {"a": float("inf")}, {"a": {1}}]
)
def test_meta_that_would_come_back_changed_is_refused(meta) -> None:
    with pytest.raises(DataError, match=r"meta: record ab12: is not plain JSON.*keep to"):
        records_to_table([Record("ab12", (), meta=meta)])


def test_a_prompt_in_segments_is_refused_since_the_segments_would_be_lost() -> None:
    with pytest.raises(DataError, match="prompt in segments"):
        records_to_table([Record("ab12", (Message("user", ("a", "b")),))])


def test_meta_is_readable_json_for_other_tools() -> None:
    table = records_to_table([Record("r", (), meta={"b": 1, "a": "é"})])
    assert json.loads(table["meta"][0].as_py()) == {"a": "é", "b": 1}


def test_verdicts_join_their_records_and_none_is_lost() -> None:
    one, two = (Verdict(p, 0, None, 1.0, 0.9) for p in ("one", "two"))
    rows = [Record("a", ()), Record("b", (), verdicts=(one,))]
    joined = join_verdicts(rows, [("b", two), ("a", one), ("a", two)])
    assert [r.verdicts for r in joined] == [(one, two), (one, two)]
    with pytest.raises(DataError, match="not there"):
        join_verdicts(rows, [("c", one)])
