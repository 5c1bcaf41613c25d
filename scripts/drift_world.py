"""A world of many topics, of which few are frequent: what filters_drift.py measures on.

Texts are prompts of the sandbox with an answer. Their topics follow Zipf's law: the k-th is 1/k as
frequent as the first, as topics and words are where people write (Zipf 1949). No text is there
twice, so none can stand on both sides of a split.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlaif.embed import Embedder, Vectors
from rlaif.sandbox import phrases as say
from rlaif.sandbox.answers import answer
from rlaif.sandbox.prompts import Kind, draw, parse

Topic = tuple[Kind, str | None]
Rows = NDArray[np.intp]

RARE = 0.03
"""The largest share of the humans that a planted topic holds."""


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Texts with their topics and vectors.

    Attributes:
        texts: of humans, then of those that are kept to be planted.
        topic: [texts] a number.
        vectors: [texts, width].
        humans: how many of them are human.
        share: [topics] of the humans.
    """

    texts: list[str]
    topic: Rows
    vectors: Vectors
    humans: int
    share: NDArray[np.float64]

    @property
    def rare(self) -> Rows:
        """Topics that hold at most `RARE` of the humans, and can be planted."""
        kept = np.unique(self.topic[self.humans :])
        return kept[self.share[kept] <= RARE]

    def split(
        self, rng: np.random.Generator, n: int, planted: int = 0, topic: int = 0
    ) -> tuple[Rows, Rows]:
        """`n` human rows and `n` others; so many of the others, the last, are of one topic."""
        drawn = rng.permutation(self.humans)[: 2 * n - planted]
        spare = np.flatnonzero(self.topic[self.humans :] == topic) + self.humans
        return drawn[:n], np.concatenate([drawn[n:], rng.permutation(spare)[:planted]])

    def said(self, rows: Rows) -> list[str]:
        """The texts of these rows."""
        return [self.texts[i] for i in rows]


def topics(seed: int = 0) -> list[Topic]:
    """Every topic, from the most frequent to the rarest."""
    found: list[Topic] = [(kind, topic) for kind in ("advice", "private") for topic in say.TOPICS]
    found += [("fact", relation) for relation in say.FACTS]
    found += [("sum", None), ("danger", None), ("unknown", None)]
    random.Random(f"topics {seed}").shuffle(found)
    return found


def make_world(humans: int, spare: int, cache: Path | None = None, seed: int = 0) -> World:
    """A world, embedded by the packaged model.

    Args:
        humans: texts by Zipf's law.
        spare: texts to plant, of each third topic that is rare.
        cache: a folder for the embeddings.
        seed: of the texts.
    """
    order, rng = topics(seed), random.Random(f"world {seed}")
    weights = 1 / np.arange(1, len(order) + 1)
    expected = weights / weights.sum()
    wanted = rng.choices(range(len(order)), weights.tolist(), k=humans)
    rare = [k for k in range(len(order)) if expected[k] <= RARE]
    wanted += [k for k in rare[::3] for _ in range(spare)]
    texts: dict[str, int] = {}
    for k in wanted:
        new = (_text(rng, *order[k]) for _ in iter(int, 1))
        texts[next(text for text in new if text not in texts)] = k
    topic = np.array(list(texts.values()))
    vectors = Embedder(cache=cache)(list(texts)).vectors
    share = np.bincount(topic[:humans], minlength=len(order)) / humans
    return World(list(texts), topic, vectors, humans, share)


def _text(rng: random.Random, kind: Kind, topic: str | None) -> str:
    while True:
        prompt = draw(rng, kind, topic)
        question = parse(prompt)
        if topic is None or (question is not None and question.topic == topic):
            return f"{prompt} {answer(prompt, {}, rng)}"
