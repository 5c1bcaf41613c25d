"""Is a text language, or word salad? A small classifier beside the band of filters/anchor.py.

Shuffled, an anchor still lies at a cosine of 0.7 to 0.98 to itself, so no similarity sees it. Here
the anchors are set against shuffles of themselves, which have the same words, and against words
drawn at random: what tells them apart is the order, and no label is needed. The order shows in
which common words follow each other, and in the vector of the whole: the embedding model has read
the words in their places. Either alone lets more than twice as many through.

Punctuation is left out: a shuffle that carries its full stop along into the middle is easy to see,
and what was learned from it would not hold for salad without one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.embed import Embedder, Vectors
from rlaif.errors import DataError
from rlaif.filters.linear import Linear, fit_linear, load_linear
from rlaif.records import seed_of

_WORD = re.compile(r"\w+(?:['’]\w+)?")
_COMMON = 200  # words that are told apart; the rest differ only by topic
_EDGE, _NUMBER, _OTHER = 0, 1, 2
_STRENGTH = 3.0
_SHUFFLES = 2  # of each text; the chance of one alone moves what is lost by a hundredth
_FOLDS = 5
_FEWEST = 50  # texts to learn from
_SHORTEST = 4  # words; fewer have too few orders
_LONGEST = 2_000  # words that are read
_STRANGE = 0.1  # share of letters that no anchor has: another script


@dataclass(frozen=True, slots=True, eq=False)
class Fluency:
    """What was learned from texts and their shuffles.

    Attributes:
        linear: log-odds that a text is language.
        common: the words that are told apart, the commonest first.
        letters: all letters of the texts that it learned from.
        threshold: log-odds under which a text is salad.
    """

    linear: Linear
    common: tuple[str, ...]
    letters: frozenset[str]
    threshold: float

    def scores(self, texts: Sequence[str], vectors: Vectors) -> NDArray[np.float64]:
        """[texts] log-odds that each is language; NaN where it cannot be judged.

        It cannot be judged with fewer than four words (as in scripts without spaces), or in
        letters that it has not learned from.

        Args:
            texts: to look at.
            vectors: [texts, width] their embeddings.

        Raises:
            DataError: the vectors are of another width than those it learned from.
        """
        known = np.array([self.judges(text) for text in texts], dtype=bool)
        found = self.linear(_features(texts, vectors, self.common))
        return np.where(known, found, np.nan)

    def judges(self, text: str) -> bool:
        """Whether it can tell anything of a text."""
        words = _words(text)
        letters = [c for word in words for c in word if c.isalpha()]
        strange = sum(c not in self.letters for c in letters)
        return len(words) >= _SHORTEST and strange <= _STRANGE * len(letters)

    def salad(self, texts: Sequence[str], vectors: Vectors) -> NDArray[np.bool_]:
        """[texts] where a text is surely no language: what cannot be judged is none of these."""
        # A comparison with NaN is false.
        found: NDArray[np.bool_] = self.scores(texts, vectors) < self.threshold
        return found

    def save(self, file: Path) -> None:
        """Write it as JSON."""
        more = {
            "common": list(self.common), "letters": "".join(sorted(self.letters)),
            "threshold": self.threshold,
        }  # fmt: skip
        replace(self.linear, more=more).save(file)


def load_fluency(file: Path, embedder: str) -> Fluency:
    """Read what `Fluency.save` wrote.

    Args:
        file: to read.
        embedder: fingerprint of the model that embeds now.

    Raises:
        DataError: no such file, another file, or another embedding model.
    """
    linear = load_linear(file, embedder)
    try:
        more = linear.more
        common, letters = tuple(more["common"]), frozenset(more["letters"])
        return Fluency(linear, common, letters, float(more["threshold"]))
    except KeyError as error:
        raise DataError("not a classifier of fluency", file=file, mend="fit it anew") from error


def fit_fluency(
    texts: Sequence[str], embed: Embedder, *, lost: float = 0.005, seed: int = 0
) -> Fluency:
    """Learn from texts, their own shuffles and random words.

    Args:
        texts: fluent ones, as the anchors; those under four words are left out.
        embed: the embedding model.
        lost: the share of fluent texts that may be called salad, 0 to 0.5: the threshold is set so
            on texts that took no part in the fit.
        seed: of shuffles and random words.

    Raises:
        DataError: fewer than 50 usable texts.
        ValueError: no such share.
    """
    if not 0 < lost <= 0.5:
        raise ValueError(f"lost must be over 0 and at most 0.5, not {lost}")
    fluent = [text for text in dict.fromkeys(texts) if len(_words(text)) >= _SHORTEST]
    if len(fluent) < _FEWEST:
        raise DataError(
            "too few texts to learn fluency from", value=len(fluent),
            mend=f"give {_FEWEST} or more of at least {_SHORTEST} words, or leave fluency out",
        )  # fmt: skip
    rows = [*fluent, *contrasts(fluent, seed)]
    embedded = embed(rows)
    usable = embedded.usable
    rows = [row for row, good in zip(rows, usable, strict=True) if good]
    good = (np.arange(len(usable)) < len(fluent))[usable]
    common = _common([row for row, yes in zip(rows, good, strict=True) if yes])
    features = _features(rows, embedded.vectors[usable], common)
    linear = fit_linear(features, good, strength=_STRENGTH, embedder=embed.fingerprint)
    # Texts alike are easily told from their shuffles; what is likelier language stays all the same.
    threshold = min(0.0, float(np.quantile(_held_out(features, good, seed), lost)))
    return Fluency(linear, common, _letters(rows), threshold)


def contrasts(texts: Sequence[str], seed: int = 0) -> list[str]:
    """Salad of texts: for each two shuffles, and one text of random words."""
    bag = [word for text in texts for word in _words(text)]
    made = []
    for text in texts:
        rng = Random(seed_of(seed, text, "fluency"))
        made += [shuffled(text, rng) for _ in range(_SHUFFLES)]
        made.append(" ".join(rng.choices(bag, k=rng.randint(_SHORTEST, 25))))
    return made


def shuffled(text: str, rng: Random) -> str:
    """The words of a text in another order, with a capital and the last mark where they were."""
    words = _WORD.findall(text)
    order = list(words)
    for _ in range(10):  # a text of one word over and over has no other order
        rng.shuffle(order)
        if order != words:
            break
    end = text.rstrip()[-1:]
    mixed = " ".join(order) + (end if not end.isalnum() else "")
    return mixed[:1].upper() + mixed[1:]


def _held_out(features: Any, good: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """Log-odds of the fluent rows, each by a classifier that did not see it."""
    fold = np.random.default_rng(seed).permutation(len(good)) % _FOLDS
    parts = []
    for f in range(_FOLDS):
        linear = fit_linear(features[fold != f], good[fold != f], strength=_STRENGTH)
        parts.append(linear(features[(fold == f) & good]))
    return np.concatenate(parts)


def _features(texts: Sequence[str], vectors: Vectors, common: Sequence[str]) -> Any:
    """Sparse [texts, pairs of classes + width]: unit counts of neighbours, and the vector."""
    from scipy.sparse import csr_matrix, hstack

    places = {word: i + _OTHER + 1 for i, word in enumerate(common)}
    classes = len(common) + _OTHER + 1
    pairs = [_pairs(text, places, classes) for text in texts]
    row = np.repeat(np.arange(len(texts)), [len(p) for p in pairs])
    values = np.concatenate([_unit_counts(p) for p in pairs]) if pairs else np.zeros(0)
    column = np.concatenate(pairs) if pairs else np.zeros(0, np.int64)
    counted = csr_matrix((values, (row, column)), shape=(len(texts), classes**2))
    return hstack([counted, csr_matrix(vectors)], format="csr")


def _pairs(text: str, places: dict[str, int], classes: int) -> NDArray[np.int64]:
    """The numbers of all pairs of neighbours, the edges of the text among them."""
    inner = [places.get(w, _NUMBER if w[0].isdigit() else _OTHER) for w in _words(text)]
    line = np.array([_EDGE, *inner, _EDGE], np.int64)
    return line[:-1] * classes + line[1:]


def _unit_counts(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each pair adds so that the counts of a text have length 1."""
    _, count = np.unique(pairs, return_counts=True)
    return np.full(len(pairs), 1 / np.sqrt((count**2).sum()))


def _words(text: str) -> list[str]:
    head = text[: _LONGEST * 20]
    return [word.casefold() for word in _WORD.findall(head)[:_LONGEST]]


def _common(texts: Sequence[str]) -> tuple[str, ...]:
    counts = Counter(word for text in texts for word in _words(text))
    # Equal counts in the order of the alphabet: the order of the texts decides nothing.
    ranked = sorted((-n, word) for word, n in counts.items() if not word[0].isdigit())
    return tuple(word for _, word in ranked[:_COMMON])


def _letters(texts: Sequence[str]) -> frozenset[str]:
    return frozenset(c for text in texts for word in _words(text) for c in word if c.isalpha())
