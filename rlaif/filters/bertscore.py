"""How alike two texts are word by word: BERTScore (Zhang et al. 2020, arXiv 1904.09675).

A second metric beside the cosine of filters/anchor.py: each token of one text is matched to the
most similar token of the other, whatever its place. Only the few anchors of the highest cosine are
compared, since it costs a matrix product a pair. Shuffled text scores high here too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaif.embed import Vectors
from rlaif.errors import DataError
from rlaif.filters.overlap import normalise

Tokens = Callable[[Sequence[str]], list[Vectors]]
"""Texts → for each its tokens' unit vectors [tokens, width], as Embedder.tokens."""

Weigh = Callable[[str, int], NDArray[np.float64]]

_BLOCK = 256  # texts whose tokens are in memory at once


@dataclass(frozen=True, slots=True, eq=False)
class BertScores:
    """BERTScore of each text with each of its candidates; NaN where either has no tokens.

    Attributes:
        precision: [texts, candidates] how well the text's tokens are found in the candidate.
        recall: [texts, candidates] how well the candidate's tokens are found in the text.
        f1: [texts, candidates] their harmonic mean; 0 where one is not over 0.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def bertscore(
    texts: Sequence[str],
    references: Sequence[str],
    candidates: NDArray[np.integer],
    tokens: Tokens,
    *,
    weights: Mapping[str, float] | None = None,
    pieces: Callable[[str], list[str]] | None = None,
) -> BertScores:
    """Score texts against the few references that each is compared to.

    Args:
        texts: to score.
        references: the anchors' texts.
        candidates: [texts, k] rows of the references, as nearest().index.
        tokens: of the embedding model.
        weights: of token strings, as `idf` makes them; None counts all alike.
        pieces: text → its token strings, one a vector of `tokens`; needed with weights.

    Raises:
        DataError: weights without pieces; pieces that do not fit the vectors; or a candidate that
            is no reference.
    """
    if (weights is None) != (pieces is None):
        raise DataError("weights and pieces go together", mend="give both or neither")
    rows = np.asarray(candidates, dtype=np.int64).reshape(len(texts), -1)
    if rows.size and not (rows.min() >= 0 and rows.max() < len(references)):
        raise DataError("a candidate is no reference", key="candidates", value=int(rows.max()))
    found = np.full((3, *rows.shape), np.nan)
    for start in range(0, len(texts), _BLOCK):
        part = slice(start, start + _BLOCK)
        found[:, part] = _block(texts[part], references, rows[part], tokens, weights or {}, pieces)
    return BertScores(*found)


def idf(references: Sequence[str], pieces: Callable[[str], list[str]]) -> dict[str, float]:
    """How rare each token is in the references: −log of the share that hold it, plus-one smoothed.

    A token that none holds weighs as much as the rarest can: `unseen`'s.
    """
    held = Counter(piece for text in references for piece in set(pieces(text)))
    size = len(references) + 1
    return {_UNSEEN: math.log(size)} | {p: math.log(size / (n + 1)) for p, n in held.items()}


_UNSEEN = ""


def _block(
    texts: Sequence[str],
    references: Sequence[str],
    rows: NDArray[np.int64],
    tokens: Tokens,
    weights: Mapping[str, float],
    pieces: Callable[[str], list[str]] | None,
) -> NDArray[np.float64]:
    """[3, texts, k] precision, recall and F1; each text is embedded once."""
    wanted = dict.fromkeys([*texts, *(references[row] for row in np.unique(rows).tolist())])
    spoken = [text for text in wanted if normalise(text)]
    vectors = dict(zip(spoken, tokens(spoken), strict=True)) if spoken else {}
    weight = {t: _weight(t, len(v), weights, pieces) for t, v in vectors.items()}
    found = np.full((3, *rows.shape), np.nan)
    for i, text in enumerate(texts):
        for j, row in enumerate(rows[i].tolist()):
            other = references[row]
            if text in vectors and other in vectors:
                found[:, i, j] = _pair(vectors[text], vectors[other], weight[text], weight[other])
    return found


def _weight(
    text: str,
    count: int,
    weights: Mapping[str, float],
    pieces: Callable[[str], list[str]] | None,
) -> NDArray[np.float64]:
    """[tokens] adding up to 1."""
    if pieces is None:
        return np.full(count, 1 / max(count, 1))
    names = pieces(text)[:count]
    if len(names) != count:
        raise DataError(
            f"{len(names)} pieces and {count} vectors of a text", key="pieces", value=text,
            mend="cut the text with the embedding model's own tokenizer",
        )  # fmt: skip
    found = np.array([weights.get(name, weights.get(_UNSEEN, 1.0)) for name in names])
    # All of them in every reference: none tells more than another.
    return found / found.sum() if found.sum() > 0 else np.full(count, 1 / max(count, 1))


def _pair(
    one: Vectors, other: Vectors, weight: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[float, float, float]:
    similar = one @ other.T
    precision = float(similar.max(1) @ weight)
    recall = float(similar.max(0) @ others)
    sound = precision > 0 and recall > 0
    return precision, recall, 2 * precision * recall / (precision + recall) if sound else 0.0
