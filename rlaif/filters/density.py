"""Sentences that say little, taken out of responses; responses of little else, dropped.

A linear classifier over sentence embeddings, fitted to sentences that say something and sentences
that do not. What stays of a response is untouched, its spaces and line breaks among it; code stays
whole. A sentence that cannot be embedded stays: it was not found empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlaif.embed import Embedder, Vectors
from rlaif.errors import DataError
from rlaif.filters.linear import Linear, fit_linear, load_linear
from rlaif.filters.sentences import is_code, sentences
from rlaif.records import Drop

STAGE = "density"
SPARSE = "low density: too few sentences say anything"
EMPTY = "empty text"

_STRENGTH = 10.0
_FEWEST = 20  # sentences of each kind


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """A classifier of sentences.

    Attributes:
        linear: log-odds that a sentence says something, from its vector.
    """

    linear: Linear

    def scores(self, vectors: Vectors) -> NDArray[np.float64]:
        """[sentences] log-odds of vectors [sentences, width] that each says something.

        Raises:
            DataError: vectors of another width than the classifier was fitted on.
        """
        return self.linear(vectors)

    def save(self, file: Path) -> None:
        """Write it as JSON."""
        self.linear.save(file)


def load_density(file: Path, embedder: str) -> Density:
    """Read what `Density.save` wrote.

    Args:
        file: to read.
        embedder: fingerprint of the model that embeds now.

    Raises:
        DataError: no such file, another file, or another embedding model.
    """
    return Density(load_linear(file, embedder))


def fit_density(informative: Sequence[str], empty: Sequence[str], embed: Embedder) -> Density:
    """Learn from sentences of both kinds; those that cannot be embedded are left out.

    Args:
        informative: sentences that say something.
        empty: sentences that would not be missed.
        embed: the embedding model.

    Raises:
        DataError: fewer than 20 usable sentences of a kind, or a sentence that is of both.
    """
    both = sorted(set(informative) & set(empty))
    if both:
        raise DataError("a sentence is given as both kinds", value=both[0], mend="leave one out")
    kinds = [embed(list(dict.fromkeys(kind))) for kind in (informative, empty)]
    told, said = (kind.vectors[kind.usable] for kind in kinds)
    if min(len(told), len(said)) < _FEWEST:
        raise DataError(
            "too few sentences to learn density from", value=(len(told), len(said)),
            mend=f"give {_FEWEST} or more that say something and as many that do not",
        )  # fmt: skip
    good = np.arange(len(told) + len(said)) < len(told)
    linear = fit_linear(
        np.concatenate([told, said]), good, strength=_STRENGTH, embedder=embed.fingerprint
    )
    return Density(linear)


@dataclass(frozen=True, slots=True)
class Pruned:
    """Responses without their empty sentences.

    Attributes:
        kept: places of the responses that stay, rising.
        texts: what is left of each of them.
        removed: for each of them the sentences that were taken out.
        drops: the other responses, with the reason.
    """

    kept: tuple[int, ...]
    texts: tuple[str, ...]
    removed: tuple[tuple[str, ...], ...]
    drops: tuple[Drop, ...]


def prune(
    texts: Sequence[str],
    ids: Sequence[str],
    density: Density,
    embed: Embedder,
    *,
    share: float = 0.5,
    threshold: float = 0.0,
) -> Pruned:
    """Take out sentences that say little, and drop what says too little on the whole.

    Args:
        texts: responses.
        ids: what each response's drop is to be called.
        density: fitted with the same embedding model.
        embed: the embedding model.
        share: of a response's sentences that must stay; with fewer it is dropped.
        threshold: log-odds under which a sentence goes.

    Raises:
        DataError: the classifier was fitted with another embedding model.
        ValueError: texts and ids are not of one length, or no such share.
    """
    if len(texts) != len(ids) or not 0 <= share <= 1:
        raise ValueError(f"{len(texts)} texts, {len(ids)} ids, share {share}")
    if density.linear.embedder not in ("", embed.fingerprint):
        raise DataError(
            "the classifier of density was fitted with another embedding model",
            mend="fit it anew, or embed with the model that it was fitted with",
        )
    pieces = [sentences(text) for text in texts]
    said = _says(sorted({p for row in pieces for p in row}), density, embed, threshold)
    rows = [[(piece, said[piece]) for piece in row] for row in pieces]
    reasons = [_reason(row, share) for row in rows]
    kept = tuple(i for i, reason in enumerate(reasons) if reason is None)
    drops = [Drop(id_, STAGE, *why) for id_, why in zip(ids, reasons, strict=True) if why]
    return Pruned(
        kept,
        tuple("".join(piece for piece, stays in rows[i] if stays) for i in kept),
        tuple(tuple(piece.strip() for piece, stays in rows[i] if not stays) for i in kept),
        tuple(drops),
    )


def _says(
    pieces: Sequence[str], density: Density, embed: Embedder, threshold: float
) -> dict[str, bool]:
    """For each piece whether it stays; what is no sentence always does."""
    prose = [piece for piece in pieces if _is_sentence(piece)]
    embedded = embed([piece.strip() for piece in prose])
    stays = dict.fromkeys(pieces, True)
    scores = density.scores(embedded.vectors)
    for piece, score, usable in zip(prose, scores, embedded.usable, strict=True):
        stays[piece] = bool(score >= threshold) or not usable
    return stays


def _reason(row: Sequence[tuple[str, bool]], share: float) -> tuple[str, str] | None:
    counted = [stays for piece, stays in row if piece.strip()]
    if not counted:
        return EMPTY, ""
    kept = sum(counted)
    if kept < share * len(counted) or not kept:
        return SPARSE, f"{kept} of {len(counted)} sentences: {''.join(p for p, _ in row)[:200]}"
    return None


def _is_sentence(piece: str) -> bool:
    """Whether it holds words to judge: no code, blank line, rule or number of a list."""
    return any(c.isalpha() for c in piece) and not is_code(piece)
