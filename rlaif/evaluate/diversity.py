"""How varied one sample of texts is: in its words, and in what it means. Under collapse.py.

Every figure here depends on the size of the sample, so only samples of one size may be compared:
`cut` makes them of one size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from rlaif.cells import Vectors
from rlaif.entropy import entropy

Tokens = Sequence[Hashable]
"""One text: its words, or a tokenizer's ids."""


def cut(texts: Sequence[Tokens], tokens: int, rng: np.random.Generator) -> list[Tokens]:
    """Texts in a drawn order up to so many tokens in all; the last one is cut short.

    Raises:
        ValueError: the texts do not have that many.
    """
    found, left = list[Tokens](), tokens
    for i in rng.permutation(len(texts)).tolist():
        if left <= 0:
            break
        found.append(texts[i][:left])
        left -= len(found[-1])
    if left > 0:
        raise ValueError(f"{tokens - left} tokens, not {tokens}")
    return found


def token_entropy(texts: Sequence[Tokens]) -> float:
    """Shannon's entropy of single tokens, in nats; NaN without any. It grows with their number."""
    counts = Counter(token for text in texts for token in text)
    return entropy(np.array(list(counts.values()), np.int64))


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Different n-grams over all n-grams, 0 to 1 (Li et al. 2016, arXiv 1510.03055); NaN without.

    It falls with the number of tokens. No n-gram goes from one text into the next.
    """
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def vendi(vectors: Vectors) -> float:
    """How many texts that have nothing in common would be as varied: 1 to n; NaN without texts.

    The Vendi score (Friedman & Dieng 2023, arXiv 2210.02410): e to the entropy of the eigenvalues
    of the similarity matrix over n, here the cosine. They are those of the width × width matrix
    too, which is the smaller one. It grows with n.

    Args:
        vectors: [n, width] of length 1.
    """
    if not len(vectors):
        return math.nan
    rows = vectors.astype(np.float64)
    matrix = rows.T @ rows if rows.shape[0] > rows.shape[1] else rows @ rows.T
    return math.exp(entropy(np.linalg.eigvalsh(matrix).clip(min=0)))
