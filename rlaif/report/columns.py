"""All rounds' rows as the columns that the page's filters work on.

    rows.py → [columns] → page.py

A row is a place in every column. Texts and the judge's probabilities are kept once and are named
by number: a response is in many pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rlaif.report.responses import STEPS, UNKNOWN, Bytes, Ints, Responses
from rlaif.report.rows import KINDS, Rows, joined
from rlaif.report.texts import Texts

NONE = 0xFFFFFFFF
"""In a column of numbers: there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Rows of the whole run.

    Attributes:
        kind, round: places in `KINDS` and in the run's rounds.
        reason: its number in `Reasons`.
        margin, confidence: as in `Rows`.
        id, prompt, detail: numbers of texts.
        left, right: numbers of shown responses.
        response_text: [shown responses] numbers of texts.
        probabilities: [principles, shown responses], in `STEPS`; for a pairwise judge
            [principles, rows], that the left response is the better one.
        pairwise: which of the two.
        texts: what is named.
    """

    kind: Bytes
    round: NDArray[np.uint16]
    reason: NDArray[np.uint16]
    margin: NDArray[np.float32]
    confidence: NDArray[np.float32]
    id: NDArray[np.uint32]
    prompt: NDArray[np.uint32]
    detail: NDArray[np.uint32]
    left: NDArray[np.uint32]
    right: NDArray[np.uint32]
    response_text: NDArray[np.uint32]
    probabilities: Bytes
    pairwise: bool
    texts: Texts

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(slots=True)
class Gathered:
    """The columns while rounds are added to them."""

    principles: int
    pairwise: bool
    texts: Texts = field(default_factory=Texts)
    _parts: dict[str, list[NDArray[np.generic]]] = field(default_factory=dict)
    _ids: list[str] = field(default_factory=list)
    _responses: int = 0

    def add(self, number: int, kinds: Mapping[str, Rows], responses: Responses) -> None:
        """Add the rows of a round, by kind."""
        for kind, part in kinds.items():
            self._put("kind", np.full(len(part), KINDS.index(kind), np.uint8))
        rows = joined(list(kinds.values()))
        self._put("round", np.full(len(rows), number, np.uint16))
        self._put("reason", rows.reason.astype(np.uint16))
        self._put("margin", rows.margin)
        self._put("confidence", rows.confidence)
        used = np.unique(np.concatenate([rows.left, rows.right]))
        used = used[used >= 0]
        for name, slots in (("left", rows.left), ("right", rows.right)):
            shown = np.searchsorted(used, slots) + self._responses
            self._put(name, np.where(slots < 0, NONE, shown).astype(np.uint32))
        self._add_texts(rows, responses, used)
        if self.pairwise:
            self._put("probabilities", _compared(rows, responses, self.principles))
        else:
            self._put("probabilities", responses.probabilities[:, used])
        self._responses += len(used)

    def _add_texts(self, rows: Rows, responses: Responses, used: Ints) -> None:
        # Row by row, so that what one screen shows lies in one chunk.
        said = responses.texts.take(used).to_pylist()
        of_slot = dict(zip(used.tolist(), said, strict=True))
        add, numbers, prompts = self.texts.add, dict[int, int](), []
        for record, left, right in zip(
            rows.record.tolist(), rows.left.tolist(), rows.right.tolist(), strict=True
        ):
            prompts.append(add(responses.prompts[record]) if record >= 0 else NONE)
            for slot in (left, right):
                if slot >= 0 and slot not in numbers:
                    numbers[slot] = add(of_slot[slot])
        self._put("prompt", np.array(prompts, np.uint32))
        shown = [numbers[slot] for slot in used.tolist()]
        self._put("response_text", np.array(shown, np.uint32))
        detail = [add(detail) if detail else NONE for detail in rows.details]
        self._put("detail", np.array(detail, np.uint32))
        self._ids += rows.ids

    def _put(self, name: str, part: NDArray[np.generic]) -> None:
        self._parts.setdefault(name, []).append(part)

    def done(self) -> Columns:
        """The columns. The records' ids come last of the texts: they are looked at least."""
        ids = np.array([self.texts.add(id_) for id_ in self._ids], np.uint32)
        joined = {name: np.concatenate(parts, axis=-1) for name, parts in self._parts.items()}
        for name in ("kind", "round", "reason", "margin", "confidence", "prompt", "detail", "left",
                     "right", "response_text"):  # fmt: skip
            joined.setdefault(name, np.zeros(0, _TYPES.get(name, np.uint32)))
        joined.setdefault("probabilities", np.zeros((self.principles, 0), np.uint8))
        return Columns(**joined, id=ids, pairwise=self.pairwise, texts=self.texts)


_TYPES: dict[str, type[np.generic]] = {
    "kind": np.uint8, "round": np.uint16, "reason": np.uint16,
    "margin": np.float32, "confidence": np.float32,
}  # fmt: skip


def _compared(rows: Rows, responses: Responses, principles: int) -> Bytes:
    """[principles, rows] that the left response is the better one."""
    found = np.full((principles, len(rows)), UNKNOWN, np.uint8)
    both = (rows.left >= 0) & (rows.right >= 0)
    keys = responses.pair_key(rows.left, rows.right)
    turned = responses.pair_key(rows.right, rows.left)
    for row, (known, values) in responses.compared.items():
        forward, backward = _look_up(known, values, keys), _look_up(known, values, turned)
        backward = np.where(backward == UNKNOWN, UNKNOWN, STEPS - backward.astype(int))
        either = np.where(forward == UNKNOWN, backward, forward)
        found[row] = np.where(both, either, UNKNOWN)
    return found


def _look_up(known: Ints, values: Bytes, keys: Ints) -> Bytes:
    if not len(known):
        return np.full(len(keys), UNKNOWN, np.uint8)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, values[place], UNKNOWN).astype(np.uint8)
