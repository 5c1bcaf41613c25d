"""Embeddings by the million that look like real ones: some of real text, mixed and jittered.

For scripts/filters_scale.py. Embeddings of text lie in a narrow, clustered part of the sphere;
directions drawn evenly would be too easy to tell apart, and too hard to index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_FRAMES = (
    "How do I {deed} {thing} {when}?",
    "Explain to {who} why people {deed} {thing}.",
    "Write a short note for {who} about how to {deed} {thing} {when}.",
    "{who} would like to {deed} {thing} {when}. What should be done first?",
    "List three reasons not to {deed} {thing} {when}.",
    "What does it cost to {deed} {thing}, and who can help {who} with it?",
    "Is it safe for {who} to {deed} {thing} {when}?",
    "Tell a story in which {who} must {deed} {thing} {when}.",
    "Summarise the usual advice on how to {deed} {thing} for {who}.",
    "Compare two ways to {deed} {thing} {when}.",
)
_DEEDS = (
    "repair", "paint", "sell", "borrow", "photograph", "insure", "clean", "replace", "describe",
    "move", "measure", "inherit", "design", "protect", "store", "rent", "inspect", "share",
    "translate", "test", "order", "count", "draw", "improve", "choose",
)  # fmt: skip
_THINGS = (
    "an old violin", "a leaking tap", "the kitchen floor", "a savings account", "a tax form",
    "a python script", "a neural network", "a vegetable garden", "a beehive", "a mountain bike",
    "a wedding cake", "a history essay", "a rental contract", "a fishing boat", "a solar panel",
    "a telescope", "a school timetable", "a poem about winter", "a chess opening", "a vaccine",
    "a family photograph", "a database index", "a winter coat", "a wooden bridge", "a passport",
    "a cup of coffee", "a volcano", "a court decision", "a piano lesson", "a train ticket",
    "a bacterium", "a stock portfolio", "a stone wall", "a newborn kitten", "a medical record",
    "a recipe for bread", "a steam engine", "a foreign language", "a river map", "a rocket",
)  # fmt: skip
_PEOPLE = (
    "a farmer", "my grandmother", "a law student", "two engineers", "a nurse", "a small company",
    "the town council", "a child of six", "a travelling musician", "a retired teacher",
    "an astronaut", "a shop owner", "the new neighbours", "a biologist", "a football coach",
)  # fmt: skip
_TIMES = (
    "in winter", "before the exam", "without any money", "on a small island", "in a hurry",
    "after a flood", "with one hand", "during a strike", "on a Sunday morning",
    "for the first time", "in the middle of a city", "when nobody is watching", "by next week",
    "at night",
)  # fmt: skip


def sentences(count: int, seed: int = 0) -> list[str]:
    """So many different sentences, the same for the same seed."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        deed, thing, who, when = (
            words[rng.integers(len(words))] for words in (_DEEDS, _THINGS, _PEOPLE, _TIMES)
        )
        frame = _FRAMES[rng.integers(len(_FRAMES))]
        found[frame.format(deed=deed, thing=thing, who=who, when=when)] = None
    return list(found)


@lru_cache(maxsize=1)
def embedded(count: int) -> Vectors:
    """[count, width] real embeddings of sentences."""
    from rlaif.embed import Embedder

    return Embedder()(sentences(count)).vectors


@dataclass(frozen=True, slots=True, eq=False)
class Cloud:
    """A stream of vectors, each a mixture of three real ones with a jitter.

    Attributes:
        real: [any, width] real embeddings.
        seed: what the stream follows from.
        jitter: length of the jitter, against 1 of the mixture.
    """

    real: Vectors
    seed: int = 0
    jitter: float = 0.35

    def blocks(self, count: int, rows: int = 8192) -> Iterator[Vectors]:
        """[rows, width] of unit vectors, again and again until there are `count`."""
        for start in range(0, count, rows):
            yield self._block(start, min(rows, count - start))

    def all(self, count: int) -> Vectors:
        """[count, width] of unit vectors."""
        made = np.empty((count, self.real.shape[1]), np.float32)
        at = 0
        for block in self.blocks(count):
            made[at : at + len(block)] = block
            at += len(block)
        return made

    def _block(self, start: int, rows: int) -> Vectors:
        rng = np.random.default_rng((self.seed, start))
        chosen = rng.integers(len(self.real), size=(rows, 3))
        shares = rng.dirichlet((1.0, 1.0, 1.0), size=rows).astype(np.float32)
        mixed = unit(np.matmul(shares[:, None], self.real[chosen])[:, 0])
        return unit(mixed + self.jitter * unit(_normal(rng, mixed.shape)))


def near_copies(vectors: Vectors, least: float, seed: int = 0) -> Vectors:
    """For each vector one at a cosine of `least` to 1 with it."""
    rng = np.random.default_rng(seed)
    cosine = rng.uniform(least, 1.0, size=(len(vectors), 1)).astype(np.float32)
    other = _normal(rng, vectors.shape)
    other -= (other * vectors).sum(1, keepdims=True) * vectors
    return unit(cosine * vectors + np.sqrt(1 - cosine**2) * unit(other))


def unit(vectors: NDArray[Any]) -> Vectors:
    """The vectors at length 1."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Vectors:
    return rng.standard_normal(shape, dtype=np.float32)
