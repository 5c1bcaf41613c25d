"""What a training row looks like: the columns that pick.py fills and TRL reads.

Conversational, with an explicit prompt, so that TRL applies the student's own chat template and the
prompt is not repeated inside a completion. The other columns say where a label came from; TRL
leaves them aside, except `margin`, which its RewardTrainer takes into the loss by itself.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rlaif.records import Record, chat_to_json, sigmoid

Row = dict[str, Any]

_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ORIGIN = [("constitution", pa.string()), ("judge", pa.string())]

SFT_SCHEMA = pa.schema(
    [
        ("prompt", _CHAT),
        ("completion", _CHAT),
        ("score", pa.float64()),
        ("score_margin", pa.float64()),
        ("record_id", pa.string()),
        ("response_index", pa.int64()),
        *_ORIGIN,
    ]
)


def pair_schema(write_margin: bool) -> pa.Schema:
    """The columns of a preference pair; `margin` is there only if asked for, and never null."""
    columns = [
        ("prompt", _CHAT),
        ("chosen", _CHAT),
        ("rejected", _CHAT),
        ("score_margin", pa.float64()),
        ("concession", pa.float64()),
        ("chosen_probability", pa.float64()),
        ("probability_calibrated", pa.bool_()),
        ("record_id", pa.string()),
        ("chosen_index", pa.int64()),
        ("rejected_index", pa.int64()),
        *_ORIGIN,
    ]
    margin = [pa.field("margin", pa.float64(), nullable=False)] if write_margin else []
    return pa.schema([*columns, *margin])


def sft_row(record: Record, index: int, score: float | None, margin: float) -> Row:
    """A response to imitate; `score` and `margin` in nats. The origin is for pick.py to add."""
    return {
        "prompt": chat_to_json(record.prompt),
        "completion": _completion(record, index),
        "score": score,
        "score_margin": margin,
        "record_id": record.id,
        "response_index": index,
    }


def pair_row(record: Record, chosen: int, rejected: int, margin: float, concession: float) -> Row:
    """A preference; `margin` in nats, over 0. Its probability, σ(margin), is not calibrated here.

    `concession`, in nats, is by how much the rejected response is the better one under the
    principle where it is most so; 0 where it is so under none.

    The origin, and the column `margin`, are for pick.py to add.
    """
    return {
        "prompt": chat_to_json(record.prompt),
        "chosen": _completion(record, chosen),
        "rejected": _completion(record, rejected),
        "score_margin": margin,
        "concession": concession,
        "chosen_probability": sigmoid(margin),
        "probability_calibrated": False,
        "record_id": record.id,
        "chosen_index": chosen,
        "rejected_index": rejected,
    }


def _completion(record: Record, index: int) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": record.responses[index].text}]
