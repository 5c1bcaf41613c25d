"""How much two texts share letter for letter: character 3-grams. Under filters/anchor.py.

An embedding sees what a text is about; one typo can move it far. Letters do not: a text of six
words and its copy with one of them replaced still share more than half of their 3-grams.
"""

from __future__ import annotations

import unicodedata

Grams = frozenset[str]

_LONGEST = 100_000  # characters; beyond them texts are compared by their beginnings


def normalise(text: str) -> str:
    """The text with case, punctuation, symbols and spaces folded: words and single spaces."""
    folded = unicodedata.normalize("NFKC", text[:_LONGEST]).casefold()
    return " ".join("".join(c if _spoken(c) else " " for c in folded).split())


def grams(text: str) -> Grams:
    """The different character 3-grams of the normalised text, padded by two spaces a side.

    Empty where the text holds neither letter nor digit.
    """
    plain = normalise(text)
    padded = f"  {plain}  "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2)) if plain else frozenset()


def overlap(one: Grams, other: Grams) -> float:
    """Jaccard's index of two sets, 0 to 1; 0 where both are empty."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0


def _spoken(character: str) -> bool:
    """A letter, a mark on one, or a digit."""
    return unicodedata.category(character)[0] in "LMN"
