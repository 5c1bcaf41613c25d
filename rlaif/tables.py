"""Records as Arrow tables and back: what the journal's Parquet shards hold.

A shard of samples has a row a record; a shard of verdicts has a row a verdict, and one principle.
`join_verdicts` puts the two together again. What was written comes back equal, but for two things
that no UTF-8 text can hold or that a table has no place for:

- a lone surrogate (half of a UTF-16 pair) in a text becomes U+FFFD, the replacement character;
- a record's verdicts are not part of its sample row.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from rlaif.engines.protocol import Generation
from rlaif.errors import DataError
from rlaif.records import Record, Response, Verdict, chat_from_json, chat_to_json

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_RESPONSE = pa.struct([("text", pa.string()), ("tokens", pa.int64()), ("finish", pa.string())])
_SURROGATE = re.compile("[\ud800-\udfff]")

SAMPLES = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("prompt", pa.list_(_MESSAGE), nullable=False),
        pa.field("responses", pa.list_(_RESPONSE), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)
"""A record a row. `index` counts records within the run, from 0; `meta` is a JSON object."""

VERDICTS = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("principle", pa.string(), nullable=False),
        pa.field("response", pa.int64(), nullable=False),
        pa.field("other", pa.int64()),
        pa.field("log_odds", pa.float64()),
        pa.field("coverage", pa.float64(), nullable=False),
        pa.field("order_gap", pa.float64()),
        pa.field("reason", pa.string()),
        pa.field("rationale", pa.string()),
    ]
)
"""A verdict a row, with the fields of `Verdict`; a null `log_odds` is an abstention."""

ANSWERS = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("response", _RESPONSE),
        pa.field("reason", pa.string()),
    ]
)
"""A question a row, by its id, with the one response to it or the reason for none."""

JudgedRow = tuple[str, Verdict]
"""The id of a record, and a verdict on it."""


def records_to_table(records: Iterable[Record], first: int = 0) -> pa.Table:
    """Records as rows of `SAMPLES`, without their verdicts.

    Args:
        records: in the run's order.
        first: the index within the run of the first one.

    Raises:
        DataError: a record whose meta is not plain JSON, or whose prompt is in segments (which
            belong to what a judge reads, and would be lost here).
    """
    rows = [_record_to_row(record, first + i) for i, record in enumerate(records)]
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def records_from_table(table: pa.Table) -> list[Record]:
    """The reverse of `records_to_table`."""
    return [_record_from_row(row) for row in table.to_pylist()]


def verdicts_to_table(rows: Iterable[JudgedRow]) -> pa.Table:
    """Verdicts, each with its record's id, as rows of `VERDICTS`."""
    return pa.Table.from_pylist([_verdict_to_row(*row) for row in rows], schema=VERDICTS)


def verdicts_from_table(table: pa.Table) -> list[JudgedRow]:
    """The reverse of `verdicts_to_table`."""
    return [(row.pop("record_id"), Verdict(**row)) for row in table.to_pylist()]


def answers_to_table(questions: Iterable[str], answers: Iterable[Generation]) -> pa.Table:
    """Answers of one response at most, each with its question's id, as rows of `ANSWERS`."""
    rows = [
        {
            "question": question,
            "response": next(map(_response_to_row, answer.responses), None),
            "reason": _utf8(answer.reason),
        }
        for question, answer in zip(questions, answers, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=ANSWERS)


def answers_from_table(table: pa.Table) -> list[Generation]:
    """The reverse of `answers_to_table`, without the questions."""
    return [
        Generation((Response(**row["response"]),) if row["response"] else (), row["reason"])
        for row in table.to_pylist()
    ]


def join_verdicts(records: Iterable[Record], rows: Iterable[JudgedRow]) -> list[Record]:
    """The records, each with the verdicts on it added to those it had, in the order of `rows`.

    Raises:
        DataError: a verdict on a record that is not there.
    """
    verdicts = defaultdict(list)
    for id_, verdict in rows:
        verdicts[id_].append(verdict)
    joined = [r.with_(verdicts=r.verdicts + tuple(verdicts.pop(r.id, ()))) for r in records]
    if verdicts:
        raise DataError("a verdict on a record that is not there", value=next(iter(verdicts)))
    return joined


def _record_to_row(record: Record, index: int) -> dict[str, Any]:
    if any(not isinstance(m.content, str) for m in record.prompt):
        raise DataError(f"record {record.id}: a prompt in segments", mend="give it plain text")
    prompt = [{k: _utf8(v) for k, v in m.items()} for m in chat_to_json(record.prompt)]
    responses = [_response_to_row(r) for r in record.responses]
    meta = _meta_to_json(record)
    return {
        "record_id": record.id,
        "index": index,
        "prompt": prompt,
        "responses": responses,
        "meta": meta,
    }


def _response_to_row(response: Response) -> dict[str, Any]:
    return {
        "text": _utf8(response.text), "tokens": response.tokens, "finish": response.finish
    }  # fmt: skip


def _record_from_row(row: Mapping[str, Any]) -> Record:
    return Record(
        id=row["record_id"],
        prompt=chat_from_json(row["prompt"]),
        responses=tuple(Response(**r) for r in row["responses"]),
        meta=json.loads(row["meta"]),
    )


def _verdict_to_row(id_: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "record_id": id_,
        "principle": verdict.principle,
        "response": verdict.response,
        "other": verdict.other,
        "log_odds": verdict.log_odds,
        "coverage": verdict.coverage,
        "order_gap": verdict.order_gap,
        "reason": _utf8(verdict.reason),
        "rationale": _utf8(verdict.rationale),
    }


def _meta_to_json(record: Record) -> str:
    """ASCII with escapes, which even a lone surrogate survives."""
    try:
        text = json.dumps(dict(record.meta), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _bad_meta(record) from error
    if json.loads(text) != dict(record.meta):  # a tuple, or a key that is not text
        raise _bad_meta(record)
    return text


def _bad_meta(record: Record) -> DataError:
    mend = "keep to text, finite numbers, true, false, null, lists and objects"
    return DataError(f"record {record.id}: is not plain JSON", key="meta", mend=mend)


def _utf8(text: str | None) -> str | None:
    return None if text is None else _SURROGATE.sub("\ufffd", text)
