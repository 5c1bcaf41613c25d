"""What texts say, as counts of their n-grams: the table that drift.py compares beside the cells.

Embeddings see what a text is about; n-grams see the words that it is put in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy.sparse import csr_matrix, hstack

from rlaif.errors import DataError

Tokenize = Callable[[str], Sequence[Hashable]]
"""A text → its tokens: words, or a tokenizer's ids."""

_LONGEST = 4096  # tokens of a text that are counted; one book must not outweigh a thousand answers
_LONGEST_TOKEN = 32  # characters; the end of a long text is not even split

# Scripts that put no space between words: a character is a token.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


def words(text: str) -> list[str]:
    """The words and marks of a text, as many as are read; a character each where none is spaced."""
    found: list[str] = _WORD.findall(text[: _LONGEST * _LONGEST_TOKEN])
    return found[:_LONGEST]


def count_ngrams(
    texts: Sequence[str], *, n: int = 2, most: int = 4096, tokenize: Tokenize | None = None
) -> csr_matrix:
    """How often each text has each n-gram.

    The n-grams that most texts have get a column each; the last column is for all others. Which
    these are does not depend on the order of the texts.

    Args:
        texts: the two samples together.
        n: tokens an n-gram; a text that is shorter is one n-gram.
        most: columns for single n-grams.
        tokenize: None takes `words`.

    Returns:
        [texts, most + 1 or fewer] float32.

    Raises:
        DataError: n is less than 1, or no text has a token.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    if n < 1:
        raise DataError("must be 1 or more", key="ngram", value=n)
    split = words if tokenize is None else _bounded(tokenize)
    counter = CountVectorizer(analyzer=lambda text: _ngrams(split(text), n), dtype=np.float32)
    try:
        counts = counter.fit_transform(texts)
    except ValueError as error:  # the library's way to say that there is no token
        raise DataError("no text has a token", mend="give texts that say something") from error
    # Ties go to the n-gram that is first in the sorted vocabulary.
    spread = np.asarray((counts > 0).sum(0)).ravel()
    kept = np.sort(np.argsort(-spread, kind="stable")[:most])
    common = counts[:, kept]
    return csr_matrix(hstack([common, csr_matrix(counts.sum(1) - common.sum(1))]))


def _bounded(tokenize: Tokenize) -> Tokenize:
    return lambda text: tokenize(text[: _LONGEST * _LONGEST_TOKEN])[:_LONGEST]


def _ngrams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    if len(tokens) < n:
        return [tuple(tokens)] if tokens else []
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
