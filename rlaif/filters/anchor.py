"""Is a sample within the band about the human anchors? The filter against collapse.

Too near to an anchor, a sample is redundant; too far from all, it has drifted; in between, it is
new content of the kind that people asked for. For prompts, for responses, or for both joined: it
takes texts. anchor_band.py proposes the band, closeness.py measures drift, overlap.py sees copies
that an embedding does not, and fluency.py the word salad that no similarity sees. Copies among the
samples themselves are not looked for here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaif.embed import Vectors
from rlaif.filters.anchor_band import STAGE, AnchorSet, Band, Embed
from rlaif.filters.fluency import Fluency
from rlaif.filters.overlap import grams, overlap
from rlaif.nearest import check_vectors, nearest
from rlaif.records import Drop

REDUNDANT = "redundant: close to an anchor"
COPY = "redundant: shares its letters with an anchor"
DRIFT = "drift: far from every anchor"
SALAD = "word salad: the words are in no order"

OVERLAP = 0.5
"""Overlap from which a text is a copy: one edit of six words leaves more, new content has less."""

_LETTERS = 5  # nearest anchors whose letters are compared
_SHOWN = 200  # characters of an anchor in a drop


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """How near texts are to anchors.

    Attributes:
        cosine: [texts] to the nearest anchor.
        closeness: [texts] by closeness.py.
        overlap: [texts] the most character 3-grams shared with one of the nearest anchors, 0 to 1.
        nearest: [texts] row of the anchor of the highest cosine.
        alike: [texts] row of the anchor of the highest overlap.
    """

    cosine: NDArray[np.float32]
    closeness: NDArray[np.float64]
    overlap: NDArray[np.float64]
    nearest: NDArray[np.int64]
    alike: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sieved:
    """What a filter makes of texts.

    Attributes:
        kept: places of the texts that stay, rising.
        drops: the others, with the reason.
    """

    kept: tuple[int, ...]
    drops: tuple[Drop, ...]


def filter_by_anchors(
    texts: Sequence[str],
    ids: Sequence[str],
    anchors: AnchorSet,
    band: Band,
    embed: Embed,
    *,
    copy: float = OVERLAP,
    fluency: Fluency | None = None,
) -> Sieved:
    """Keep what lies in the band.

    A drop holds the cosine, the overlap and the nearest anchor's text. A text that has no vector is
    dropped with that reason; what fluency cannot judge is kept.

    Args:
        texts: prompts, responses, or both joined.
        ids: what each text's drop is to be called.
        anchors: of the same embedding model.
        band: fitted to these anchors, or written by hand.
        embed: the embedding model.
        copy: the overlap from which a text is redundant; over 1 never.
        fluency: looks for word salad in what the band keeps; None does not.

    Raises:
        DataError: the embeddings are of another width than the anchors.
        ValueError: texts and ids are not of one length.
    """
    if len(texts) != len(ids):
        raise ValueError(f"{len(texts)} texts and {len(ids)} ids")
    embedded = embed(texts)
    check_vectors(embedded.vectors, anchors.vectors.shape[1])
    reasons: list[tuple[str, str] | None] = [
        None if fault is None else (fault, "") for fault in embedded.faults
    ]
    usable = np.flatnonzero(embedded.usable).tolist()
    spoken, vectors = [texts[i] for i in usable], embedded.vectors[usable]
    scores = score(spoken, vectors, anchors, closeness=band.measure == "closeness")
    for i, reason in zip(usable, _judged(scores, anchors, band, copy), strict=True):
        reasons[i] = reason
    if fluency is not None:
        for i, salad in zip(usable, fluency.salad(spoken, vectors), strict=True):
            reasons[i] = reasons[i] or ((SALAD, "") if salad else None)
    kept = tuple(i for i, reason in enumerate(reasons) if reason is None)
    drops = [Drop(id_, STAGE, *why) for id_, why in zip(ids, reasons, strict=True) if why]
    return Sieved(kept, tuple(drops))


def score(
    texts: Sequence[str], vectors: Vectors, anchors: AnchorSet, *, closeness: bool = True
) -> Scores:
    """How near each text is to the anchors.

    Args:
        texts: to look at.
        vectors: [texts, width] their embeddings.
        anchors: of the same embedding model.
        closeness: measure it; a band of plain cosines does without, and with few anchors. NaN
            without.

    Raises:
        DataError: another width, a number that is not finite, or too few anchors for closeness.
    """
    found = nearest(vectors, anchors.vectors, min(_LETTERS, len(anchors)))
    shared = np.array([_overlaps(t, r, anchors) for t, r in zip(texts, found.index, strict=True)])
    shared = shared.reshape(found.index.shape)
    best, rows = shared.argmax(1), np.arange(len(texts))
    near = anchors.gauge(vectors) if closeness else np.full(len(texts), np.nan)
    return Scores(
        found.similarity[:, 0], near, shared[rows, best], found.index[:, 0], found.index[rows, best]
    )


def _overlaps(text: str, rows: NDArray[np.int64], anchors: AnchorSet) -> list[float]:
    mine = grams(text)
    return [overlap(mine, anchors.grams[row]) for row in rows]


def _judged(
    scores: Scores, anchors: AnchorSet, band: Band, copy: float
) -> list[tuple[str, str] | None]:
    """For each text why it is dropped, and the detail; None where it is kept."""
    low = scores.closeness if band.measure == "closeness" else scores.cosine
    reasons = np.select(
        [scores.overlap >= copy, scores.cosine >= band.high, low < band.low],
        [COPY, REDUNDANT, DRIFT], "",
    )  # fmt: skip
    return [
        (str(reason), _detail(i, str(reason), scores, anchors, band)) if reason else None
        for i, reason in enumerate(reasons)
    ]


def _detail(i: int, reason: str, scores: Scores, anchors: AnchorSet, band: Band) -> str:
    row = scores.alike[i] if reason == COPY else scores.nearest[i]
    near = f"closeness {scores.closeness[i]:.3f}, " if band.measure == "closeness" else ""
    return (
        f"cosine {scores.cosine[i]:.3f}, {near}overlap {scores.overlap[i]:.2f}; "
        f"nearest anchor: {anchors.texts[row][:_SHOWN]}"
    )
