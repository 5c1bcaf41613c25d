"""The rows of all rounds, packed to the size that the page may have.

rounds → responses.py, rows.py → columns.py → [browse] → page.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.errors import DataError
from rlaif.report.columns import Columns, Gathered
from rlaif.report.figures import Plain, Round, Story, read_yaml
from rlaif.report.principles import Principle
from rlaif.report.responses import STEPS, UNKNOWN, Responses, read_responses
from rlaif.report.rows import KINDS, Reasons, Rows, joined, places, read_rows
from rlaif.report.shards import read_shards
from rlaif.report.texts import Packed, pack_array, pack_texts

_BINS = 10


@dataclass(slots=True)
class Read:
    """What was read of the rounds.

    Attributes:
        parts: the round's place among the rounds, its rows by kind, and its responses.
        reasons: of all rows.
        histogram: of the judge's probabilities, ten bins from 0 to 1.
        verdicts, abstentions, responses: how many there are.
        calibrated: whether the pairs' probabilities are; None before there is a pair.
        pairwise: whether the judge compared two responses.
        judge: the fingerprint of the newest round's judge.
    """

    parts: list[tuple[int, dict[str, Rows], Responses]] = field(default_factory=list)
    reasons: Reasons = field(default_factory=Reasons)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    verdicts: int = 0
    abstentions: int = 0
    responses: int = 0
    calibrated: bool | None = None
    pairwise: bool = False
    judge: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Browse:
    """What the page's browser of rows holds.

    Attributes:
        columns: the rows on the page.
        whole: all rows of the run.
        packed: their texts.
        blobs: each column as base64, by name.
        every: one row in so many is on the page.
        read: what they were made of.
    """

    columns: Columns
    whole: Columns
    packed: Packed
    blobs: Mapping[str, str]
    every: int
    read: Read

    @property
    def size(self) -> int:
        """Bytes of the packed rows."""
        return self.packed.size + sum(map(len, self.blobs.values()))


def fit(read: Read, principles: Sequence[Principle], limit: int) -> Browse:
    """The rows in about so many bytes: texts are shortened, or rows left out evenly.

    Raises:
        DataError: not even one row fits.
    """
    whole = columns = _gather(read, len(principles), 1)
    every = 1
    while True:
        blobs = _blobs(columns)
        try:
            packed = pack_texts(columns.texts.all, limit - sum(map(len, blobs.values())))
        except DataError:
            if every > len(whole):
                mend = "allow a larger page"
                raise DataError("leaves no room for rows", key="limit_bytes", mend=mend) from None
            every *= 2
            columns = _gather(read, len(principles), every)
        else:
            blobs["length"] = pack_array(packed.lengths)
            return Browse(columns, whole, packed, blobs, every, read)


def read_rounds(rounds: Sequence[Round], recipe: Plain, principles: Sequence[Principle]) -> Read:
    """The finished rows of all rounds."""
    read = Read(pairwise=(recipe.get("judge") or {}).get("mode") == "pairwise")
    numbers = {p.fingerprint: i for i, p in enumerate(principles)}
    weights = np.array([p.weight for p in principles], float)
    for place, one in enumerate(rounds):
        own = read_yaml(one.run.recipe) or recipe
        judge, calibrated = _judge(one, own)
        responses = read_responses(one.run, own, numbers, judge)
        rows = read_rows(one.run, own, responses, weights, read.reasons)
        kinds = {kind: joined(parts) for kind, parts in rows.items() if parts}
        if kinds:
            read.parts.append((place, kinds, responses))
        if calibrated is not None:
            read.calibrated = read.calibrated or calibrated
        read.judge = judge or read.judge
        read.verdicts += responses.verdicts
        read.abstentions += responses.abstentions
        read.responses += len(responses.texts)
        read.histogram += _histogram(responses)
    return read


def _judge(one: Round, recipe: Plain) -> tuple[str | None, bool | None]:
    """The fingerprint of the judge that made a round's picks, and whether it is calibrated.

    Either is None where no row says it yet.
    """
    judge = None
    for name in ("pairs", "sft"):
        stage, *_ = places(recipe, name)
        for shard in read_shards(one.run, stage, ["judge", "probability_calibrated"]):
            judge, table = shard.manifest.depends.get("judge", judge), shard.table
            if table.num_rows and "judge" in table.column_names:
                calibrated = None  # picks have no probabilities
                if "probability_calibrated" in table.column_names:
                    calibrated = bool(table.column("probability_calibrated")[0].as_py())
                return table.column("judge")[0].as_py(), calibrated
    return judge, None  # it may be known though it left nothing to pick


def _histogram(responses: Responses) -> NDArray[np.int64]:
    found = np.zeros(_BINS, np.int64)
    for steps in [responses.probabilities, *(v for _, v in responses.compared.values())]:
        known = steps[steps != UNKNOWN]
        found += np.histogram(known / STEPS, _BINS, (0, 1))[0]
    return found


def _gather(read: Read, principles: int, every: int) -> Columns:
    gathered = Gathered(principles, read.pairwise)
    for place, kinds, responses in read.parts:
        shown = {k: rows.take(np.arange(0, len(rows), every)) for k, rows in kinds.items()}
        gathered.add(place, kinds if every == 1 else shown, responses)
    return gathered.done()


_NAMES = ("kind", "round", "reason", "margin", "confidence", "id", "prompt", "detail", "left",
          "right", "response_text", "probabilities")  # fmt: skip


def _blobs(columns: Columns) -> dict[str, str]:
    return {name: pack_array(getattr(columns, name)) for name in _NAMES}


def reason_counts(columns: Columns, reasons: Reasons) -> Iterator[tuple[int, str, str, int]]:
    """Each reason of the rows: its number, its stage, itself, how many rows."""
    counts = Counter(columns.reason.tolist())
    for (stage, reason), number in reasons.all.items():
        if counts[number]:
            yield number, stage, reason, counts[number]


def page_data(found: Browse, principles: Sequence[Principle], story: Story) -> dict[str, Any]:
    """What the page's script has to know of the columns, as plain data."""
    return {
        "principles": [p.id for p in principles],
        "reasons": [
            {"number": n, "stage": stage, "reason": reason, "rows": rows}
            for n, stage, reason, rows in reason_counts(found.whole, found.read.reasons)
        ],
        "kinds": list(KINDS),
        "rounds": [r.number for r in story.rounds],
        "pairwise": found.columns.pairwise,
        "calibrated": found.read.calibrated,
        "rows": len(found.columns),
        "responses": len(found.columns.response_text),
        "steps": STEPS,
        "unknown": UNKNOWN,
        "ends": found.packed.ends,
    }
