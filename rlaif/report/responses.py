"""The prompts and responses of a round, and the judge's probability for each under each principle.

    samples, verdicts → [responses] → rows.py

Everything is columnar: 100,000 pairs have millions of verdicts, and none becomes a Python object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rlaif.report.shards import manifests, read_shards, stages_under
from rlaif.run_folder import RunFolder

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

STEPS = 250
"""A probability of 1, as a byte; 0 is 0."""
UNKNOWN = 255
"""The byte of a verdict that is not there, or is an abstention."""


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """A round's records and their responses. A response's slot is its place among all of them.

    Attributes:
        ids: of the records, in order; those without responses come last.
        prompts: one text a record.
        first: [records + 1] the slot of a record's first response; the next one's is its end.
        texts: one a slot.
        probabilities: [principles, slots] of keeping the principle, in `STEPS`; pairwise: unknown.
        compared: pairwise: for each principle the keys of `pair_key`, rising, and the probability
            that the first response is the better one, in `STEPS`.
        verdicts, abstentions: how many there are.
    """

    ids: pa.Array
    prompts: Sequence[str]
    first: Ints
    texts: pa.Array
    probabilities: Bytes
    compared: Mapping[int, tuple[Ints, Bytes]]
    verdicts: int
    abstentions: int

    def places(self, ids: pa.Array | pa.ChunkedArray) -> Ints:
        """The records of these ids, as indices; -1 for one that is not there."""
        found = pc.fill_null(pc.index_in(ids, value_set=self.ids), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array)
                          else found.to_numpy()).astype(np.int64)  # fmt: skip

    def pair_key(self, one: Ints, other: Ints) -> Ints:
        """A number for each ordered pair of slots."""
        return one * max(1, len(self.texts)) + other


def read_responses(
    run: RunFolder, recipe: Mapping[str, Any], principles: Mapping[str, int], judge: str | None
) -> Responses:
    """All finished records of a round.

    Args:
        run: the round's folder.
        recipe: as plain data.
        principles: a principle's fingerprint → its row in `probabilities`.
        judge: the fingerprint of the judge whose verdicts count; None takes any.
    """
    stage = (
        "revised" if recipe.get("revise") is not None and manifests(run, "revised") else "samples"
    )
    tables = [s.table for s in read_shards(run, stage, ["record_id", "prompt", "responses"])]
    asked = [s.table for s in read_shards(run, "prompts", ["record_id", "prompt"])]
    ids, prompts, counts, texts = _flat(tables)
    without = _without_responses(asked, ids)
    ids = pa.concat_arrays([ids, without.column("record_id").combine_chunks()])
    prompts += _chats(without.column("prompt").combine_chunks())
    counts = np.concatenate([counts, np.zeros(without.num_rows, np.int64)])
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found = Responses(
        ids, prompts, first, texts,
        np.full((max(principles.values(), default=-1) + 1, len(texts)), UNKNOWN, np.uint8),
        {}, 0, 0,
    )  # fmt: skip
    return _with_verdicts(found, run, principles, judge)


def _flat(tables: Sequence[pa.Table]) -> tuple[pa.Array, list[str], Ints, pa.Array]:
    """Ids and prompts of the records, how many responses each has, and all responses' texts."""
    if not tables:
        empty = pa.array([], pa.string())
        return empty, [], np.zeros(0, np.int64), pa.array([], pa.large_string())
    table = pa.concat_tables(tables)
    responses = table.column("responses").combine_chunks()
    texts = pc.struct_field(responses.flatten(), "text").cast(pa.large_string())
    counts = pc.list_value_length(responses).to_numpy(zero_copy_only=False).astype(np.int64)
    prompts = _chats(table.column("prompt").combine_chunks())
    return table.column("record_id").combine_chunks(), prompts, counts, texts


def _without_responses(asked: Sequence[pa.Table], ids: pa.Array) -> pa.Table:
    """Prompts whose record never got to the judge: a drop may be about them."""
    if not asked:
        message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        return pa.table({"record_id": pa.array([], pa.string()), "prompt": pa.array([], message)})
    table = pa.concat_tables(asked)
    return table.filter(pc.invert(pc.is_in(table.column("record_id"), value_set=ids)))


def _chats(prompts: pa.Array) -> list[str]:
    """Each chat as one text: a lone message as it is, several with their roles."""
    if len(prompts) and pc.max(pc.list_value_length(prompts)).as_py() == 1:
        messages = prompts.flatten()
        if len(messages) == len(prompts):
            return list(pc.struct_field(messages, "content").to_pylist())
    return [_chat(chat) for chat in prompts.to_pylist()]


def _chat(messages: Sequence[Mapping[str, str]]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def _with_verdicts(
    found: Responses, run: RunFolder, principles: Mapping[str, int], judge: str | None
) -> Responses:
    compared: dict[int, tuple[Ints, Bytes]] = {}
    asked: dict[int, tuple[pa.ChunkedArray, Ints]] = {}
    verdicts = abstentions = 0
    columns = ["record_id", "principle", "response", "other", "log_odds"]
    for stage in stages_under(run, "verdicts"):
        for shard in read_shards(run, stage, columns):
            if judge is not None and shard.manifest.depends.get("judge", judge) != judge:
                break  # another judge's, from before
            table = shard.table
            if not table.num_rows:
                continue
            row = principles.get(table.column("principle")[0].as_py())
            if row is None:
                break  # of a principle that is no longer in the constitution
            verdicts += table.num_rows
            abstentions += table.column("log_odds").null_count
            # Every principle has a verdict on the same responses: they are looked up once.
            ids = table.column("record_id")
            if shard.number not in asked or not asked[shard.number][0].equals(ids):
                asked[shard.number] = ids, found.places(ids)
            _put(found, compared, row, table, asked[shard.number][1])
    return Responses(
        found.ids, found.prompts, found.first, found.texts, found.probabilities,
        {row: _in_order(*pair) for row, pair in compared.items()}, verdicts, abstentions,
    )  # fmt: skip


def _put(
    found: Responses,
    compared: dict[int, tuple[Ints, Bytes]],
    row: int,
    table: pa.Table,
    record: Ints,
) -> None:
    start = found.first[record]
    slot = start + table.column("response").to_numpy()
    known = (record >= 0) & (slot < found.first[record + 1])
    values = _steps(table.column("log_odds").to_numpy())
    if table.column("other").null_count == table.num_rows:
        found.probabilities[row, slot[known]] = values[known]
        return
    other = start + table.column("other").to_numpy()
    keys = found.pair_key(slot, other)[known]
    before = compared.get(row, (np.zeros(0, np.int64), np.zeros(0, np.uint8)))
    compared[row] = (
        np.concatenate([before[0], keys.astype(np.int64)]),
        np.concatenate([before[1], values[known]]),
    )


def _in_order(keys: Ints, values: Bytes) -> tuple[Ints, Bytes]:
    order = np.argsort(keys, kind="stable")
    return keys[order], values[order]


def _steps(log_odds: NDArray[np.float64]) -> Bytes:
    """Log-odds in nats (NaN is an abstention) as probabilities in `STEPS`."""
    odds = np.nan_to_num(log_odds, nan=0.0)
    probability = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    steps = np.rint(probability * STEPS).astype(np.uint8)
    return np.where(np.isnan(log_odds), UNKNOWN, steps).astype(np.uint8)
