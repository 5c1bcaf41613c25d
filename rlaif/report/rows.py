"""The rows of a round that the page lets a reader look through: what was kept, and what was not.

    picked → (reviewed) → pairs, sft; kept_aside → [rows] → columns.py

A filter's drop names its record alone, and a record may have many pairs. Which of them went is seen
from what came in and what went on: drops are in the order of the rows.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rlaif.report.responses import STEPS, UNKNOWN, Ints, Responses
from rlaif.report.shards import Shard, read_drops, read_shards
from rlaif.run_folder import RunFolder

KINDS = ("pairs", "sft", "other")
"""A preference pair; a pick to imitate; what was dropped before there was either."""

KEPT = ("", "kept")
Reason = tuple[str, str]
"""The stage that dropped a row, and why."""

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Reasons:
    """Every reason of the run once; the first is that a row was kept."""

    all: dict[Reason, int] = field(default_factory=lambda: {KEPT: 0})

    def place(self, reason: Reason) -> int:
        """The number of a reason."""
        return self.all.setdefault(reason, len(self.all))


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of one kind; every array has one entry a row.

    Attributes:
        record: the record's index in `Responses`; -1 for a row that never became a record.
        left, right: slots of the chosen and the rejected response; -1 where there is none.
        margin: of chosen over rejected, in nats; NaN where the two are in no order.
        confidence: the probability that the label is right, 0 to 1; NaN where there is none.
        reason: its number in `Reasons`.
        ids: of the record, or of what a dropped row was called.
        details: what a drop says besides its reason.
    """

    record: Ints
    left: Ints
    right: Ints
    margin: Floats
    confidence: Floats
    reason: Ints
    ids: list[str]
    details: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: NDArray[np.intp]) -> Rows:
        """The rows at these places, in this order."""
        return Rows(
            self.record[places], self.left[places], self.right[places], self.margin[places],
            self.confidence[places], self.reason[places],
            [self.ids[i] for i in places], [self.details[i] for i in places],
        )  # fmt: skip

    def because(self, reasons: Sequence[int], details: Sequence[str]) -> Rows:
        """The same rows, dropped."""
        return Rows(
            self.record, self.left, self.right, self.margin, self.confidence,
            np.array(reasons, np.int64), self.ids, list(details),
        )  # fmt: skip


def joined(rows: Sequence[Rows]) -> Rows:
    """Rows one after the other; at least one part."""
    ids = [id_ for part in rows for id_ in part.ids]
    details = [detail for part in rows for detail in part.details]
    record, left, right, margin, confidence, reason = (
        np.concatenate([getattr(part, name) for part in rows])
        for name in ("record", "left", "right", "margin", "confidence", "reason")
    )
    return Rows(record, left, right, margin, confidence, reason, ids, details)


@dataclass(frozen=True, slots=True)
class _Reader:
    run: RunFolder
    recipe: Mapping[str, Any]
    responses: Responses
    weights: NDArray[np.float64]
    reasons: Reasons


def read_rows(
    run: RunFolder,
    recipe: Mapping[str, Any],
    responses: Responses,
    weights: NDArray[np.float64],
    reasons: Reasons,
) -> dict[str, list[Rows]]:
    """What a round's finished shards hold, by kind, in order.

    Args:
        run: the round's folder.
        recipe: as plain data; it says which stages follow the picks.
        responses: of the round.
        weights: [principles] of the constitution; they say which two responses of a record without
            a pair are shown.
        reasons: of the whole run; new ones are added.
    """
    reader = _Reader(run, recipe, responses, weights, reasons)
    found = {name: _picked(reader, name) for name in KINDS[:2]}
    found["other"] = [
        _named(reader, drops, both=False)
        for stage in ("prompts", "samples", "revised")
        for shard in read_shards(run, stage, ["record_id"])
        if (drops := read_drops(run, stage, shard.number, shard.manifest))
    ]
    return found


def _picked(reader: _Reader, name: str) -> list[Rows]:
    first, *later = places(reader.recipe, name)
    onward = [{shard.number: shard for shard in _shards(reader, stage)} for stage in later]
    found = []
    for shard in _shards(reader, first):
        drops = read_drops(reader.run, first, shard.number, shard.manifest)
        parts = [_named(reader, drops, both=name == "pairs")] if drops else []
        rows, keys = _rows(reader, shard.table), _keys(shard.table)
        for stage, shards in zip(later, onward, strict=True):
            after = shards.get(shard.number)
            if after is None:
                waiting = reader.reasons.place((stage_label(stage, reader.recipe), "not yet"))
                rows = rows.because([waiting] * len(rows), [""] * len(rows))
                break
            parts.append(_gone(reader, stage, rows, keys, after))
            rows, keys = _rows(reader, after.table), _keys(after.table)
        found.append(_in_order([*parts, rows]))
    return [rows for rows in found if len(rows)]


def _in_order(parts: Sequence[Rows]) -> Rows:
    """What a shard's rows became, put together again: records in order, rows as they were."""
    rows = joined(parts)
    return rows.take(np.argsort(rows.record, kind="stable"))


def places(recipe: Mapping[str, Any], name: str) -> list[str]:
    """The stages that a pick goes through, in order."""
    # An empty section is there: all of it is by default.
    critic, filters = (recipe.get(part) is not None for part in ("critic", "filter"))
    before = [f"picked/{name}"] if critic or filters else []
    between = [f"reviewed/{name}"] if critic and filters else []
    return [*before, *between, name]


def stage_label(stage: str, recipe: Mapping[str, Any]) -> str:
    """Which part of the recipe writes a stage that follows the picks."""
    last = "filter" if recipe.get("filter") is not None else "critic"
    return "critic" if stage.startswith("reviewed/") else last


_COLUMNS = [
    "record_id", "chosen_index", "rejected_index", "response_index", "score_margin",
    "chosen_probability",
]  # fmt: skip


def _shards(reader: _Reader, stage: str) -> list[Shard]:
    return list(read_shards(reader.run, stage, _COLUMNS))


def _rows(reader: _Reader, table: pa.Table) -> Rows:
    """Pairs, or picks, as they were written."""
    record = reader.responses.places(table.column("record_id"))
    names = set(table.column_names)
    start = reader.responses.first[record]

    def slot(column: str) -> Ints:
        if column not in names:
            return np.full(len(record), -1, np.int64)
        found = start + table.column(column).to_numpy()
        # A pair of before, whose record was sampled anew with fewer responses, has lost its text.
        known = (record >= 0) & (found < reader.responses.first[record + 1])
        return np.where(known, found, -1)

    def number(column: str) -> Floats:
        if column not in names:
            return np.full(len(record), np.nan, np.float32)
        return table.column(column).to_numpy().astype(np.float32)  # type: ignore[no-any-return]

    chosen = "chosen_index" if "chosen_index" in names else "response_index"
    return Rows(
        record, slot(chosen), slot("rejected_index"), number("score_margin"),
        number("chosen_probability"), np.zeros(len(record), np.int64),
        table.column("record_id").to_pylist(), [""] * len(record),
    )  # fmt: skip


def _gone(reader: _Reader, stage: str, rows: Rows, keys: pa.Array, after: Shard) -> Rows:
    """The rows that a stage dropped, with its reasons."""
    kept = pc.is_in(keys, value_set=_keys(after.table)).to_numpy(zero_copy_only=False)
    gone = rows.take(np.flatnonzero(~kept))
    drops = read_drops(reader.run, stage, after.number, after.manifest)
    if len(drops) != len(gone):  # rows that are equal, or a shard of before: by their records then
        drops = _by_record(gone.ids, drops, stage_label(stage, reader.recipe))
    reasons = [reader.reasons.place((drop["stage"], drop["reason"])) for drop in drops]
    return gone.because(reasons, [drop["detail"] for drop in drops])


def _by_record(
    ids: Sequence[str], drops: Sequence[dict[str, str]], stage: str
) -> list[dict[str, str]]:
    waiting: dict[str, deque[dict[str, str]]] = defaultdict(deque)
    for drop in drops:
        waiting[drop["id"]].append(drop)
    unknown = {"stage": stage, "reason": "reason not recorded", "detail": ""}
    return [waiting[id_].popleft() if waiting[id_] else unknown for id_ in ids]


def _keys(table: pa.Table) -> pa.Array:
    """What names each row of a shard: its record and which responses it is about."""
    columns = (c for c in _COLUMNS[:4] if c in table.column_names)
    parts = [table.column(c).combine_chunks().cast(pa.string()) for c in columns]
    return pc.binary_join_element_wise(*parts, "|")


def _named(reader: _Reader, drops: Sequence[Mapping[str, str]], *, both: bool) -> Rows:
    """Drops of whole records, with two of the responses, those of `_ends`, or one."""
    ids = [drop["id"] for drop in drops]
    record = reader.responses.places(pa.array(ids, pa.string()))
    sides = np.array([_ends(reader, r) for r in record], np.int64).reshape(-1, 2)
    nothing = np.full(len(ids), np.nan, np.float32)
    reasons = [reader.reasons.place((drop["stage"], drop["reason"])) for drop in drops]
    right = sides[:, 1] if both else np.full(len(ids), -1, np.int64)
    return Rows(
        record, sides[:, 0], right, nothing, nothing, np.array(reasons, np.int64), ids,
        [drop["detail"] for drop in drops],
    )  # fmt: skip


def _ends(reader: _Reader, record: int) -> tuple[int, int]:
    """The slots of a record's highest and lowest response by the weighted sum of log-odds.

    Where no response has any, those are its first and its last; the page says so.
    """
    if record < 0:
        return -1, -1
    start, end = (int(x) for x in reader.responses.first[record : record + 2])
    if end - start < 2:
        return (start, -1) if end > start else (-1, -1)
    steps = reader.responses.probabilities[:, start:end].astype(float)
    share = np.clip(steps / STEPS, 0.01, 0.99)
    odds = np.where(steps == UNKNOWN, 0.0, np.log(share / (1 - share)))
    order = np.argsort(-(reader.weights @ odds), kind="stable")
    return start + int(order[0]), start + int(order[-1])
