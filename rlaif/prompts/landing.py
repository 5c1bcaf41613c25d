"""Whether a written prompt is of use: usable text, in a gap, and not said before. Under gaps.py.

written → [landing] → kept, or dropped and why
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.cells import Cells, Vectors
from rlaif.embed import Embedded
from rlaif.nearest import nearest
from rlaif.prompts.load import read_chat
from rlaif.prompts.rows import BadRow
from rlaif.prompts.topics import NO_VECTOR, to_centre, with_vector
from rlaif.records import Drop, Response

Embed = Callable[[Sequence[str]], Embedded]
Fault = tuple[str, str]
"""Why a prompt is dropped, in words that many share, and the detail."""

STAGE = "gaps"
CUT = "cut off"
NO_WORDS = "no words"
OUTSIDE = "outside every gap"
FAR = "farther from its region than the anchors are"
COPY = "near-copy"
FULL = "gap is full"

_SHOWN = 500  # characters of a dropped text


@dataclass(frozen=True, slots=True)
class Written:
    """What the generator wrote for one gap: a response, or the reason for none.

    Attributes:
        id: names the question: the gap it asked about, the round and the turn.
        asked: the cell it asked about.
        round: counted from 1.
    """

    id: str
    asked: int
    round: int
    response: Response | None
    reason: str | None = None

    @property
    def text(self) -> str:
        """What was written, without blanks around it."""
        return self.response.text.strip() if self.response else ""


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """A prompt that landed in a gap.

    Attributes:
        id, asked, round: as of `Written`.
        text: the prompt.
        cell: where it landed, which may be another gap than it was asked for.
        nearest: its cosine to the most similar text that was there before.
    """

    id: str
    asked: int
    round: int
    text: str
    cell: int
    nearest: float


@dataclass(slots=True)
class Landing:
    """The room that is left in each gap, and all texts so far; both change as prompts land.

    Attributes:
        cells: the regions.
        room: for each gap's cell, how many prompts are still wanted.
        known: [texts, width] prompts, anchors, and what has landed.
        least: the least cosine of a prompt to the centre of its region.
        near_copy: the cosine from which on two texts are one.
    """

    cells: Cells
    room: dict[int, int]
    known: Vectors
    least: float
    near_copy: float

    def take(self, written: Sequence[Written], embed: Embed) -> tuple[list[NewPrompt], list[Drop]]:
        """What of this is of use, in order, and a drop for all else."""
        faults = [unusable(w) for w in written]
        fine = [i for i, fault in enumerate(faults) if fault is None]
        vectors = embed([written[i].text for i in fine]).vectors
        there = with_vector(vectors)
        for i in np.array(fine, np.intp)[~there].tolist():
            faults[i] = NO_VECTOR, ""
        fine, vectors = [i for i in fine if faults[i] is None], vectors[there]
        kept, landed = list[NewPrompt](), list[int]()
        for row, (i, place) in enumerate(zip(fine, self._places(vectors), strict=True)):
            cell, similarity, closest = place
            closest = max([closest, *(vectors[landed] @ vectors[row]).tolist()])
            faults[i] = self._fault(cell, similarity, closest)
            if faults[i] is None:
                self.room[cell] -= 1
                landed.append(row)
                kept.append(_new(written[i], cell, closest))
        self.known = np.concatenate([self.known, vectors[landed]])
        return kept, [_drop(w, f) for w, f in zip(written, faults, strict=True) if f]

    def _places(self, vectors: Vectors) -> list[tuple[int, float, float]]:
        """For each its cell, its cosine to the centre, and to the nearest text of before."""
        if not len(vectors):
            return []
        place = self.cells.of(vectors)
        similarity = to_centre(vectors, place, self.cells)
        closest = nearest(vectors, self.known).similarity[:, 0]
        return list(zip(place.tolist(), similarity.tolist(), closest.tolist(), strict=True))

    def _fault(self, cell: int, similarity: float, closest: float) -> Fault | None:
        if cell not in self.room:
            return OUTSIDE, f"in region {cell}: "
        if similarity < self.least:
            return FAR, f"cosine {similarity:.3f} to the centre of region {cell}: "
        if closest >= self.near_copy:
            return COPY, f"cosine {closest:.3f}: "
        return (FULL, f"region {cell}: ") if self.room[cell] <= 0 else None


def unusable(written: Written) -> Fault | None:
    """Why there is no prompt in what was written."""
    if written.response is None:
        return written.reason or "no response", ""
    if written.response.finish != "stop":
        return CUT, ""
    try:
        read_chat(written.text)
    except BadRow as bad:
        return bad.reason, ""
    return None if any(c.isalpha() for c in written.text) else (NO_WORDS, "")


def _new(written: Written, cell: int, closest: float) -> NewPrompt:
    return NewPrompt(written.id, written.asked, written.round, written.text, cell, closest)


def _drop(written: Written, fault: Fault) -> Drop:
    text = written.text
    shown = repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…") if text else ""
    return Drop(written.id, STAGE, fault[0], f"{fault[1]}{shown}")
