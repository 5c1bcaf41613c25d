"""Vectors with topics, of which one can be planted: what the tests of drift are made of."""

from __future__ import annotations

import numpy as np

from rlaif.embed import Vectors

WIDTH, TOPICS = 24, 30
PLANTED = 3
_CENTRES = np.random.default_rng(7).normal(size=(TOPICS, WIDTH))


def sample(rng: np.random.Generator, n: int, topic: int | None = None) -> Vectors:
    """Unit vectors around the topics, or around one of them."""
    topics = rng.integers(0, TOPICS, n) if topic is None else np.full(n, topic)
    vectors = _CENTRES[topics] + 0.6 * rng.normal(size=(n, WIDTH))
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def halves(seed: int, n: int) -> tuple[Vectors, Vectors]:
    """Two samples of one distribution, `n` rows each."""
    rng = np.random.default_rng(seed)
    return sample(rng, n), sample(rng, n)


def planted(seed: int, n: int = 500, share: float = 0.1) -> tuple[Vectors, Vectors]:
    """Human vectors, and synthetic ones of which the last are all of one topic."""
    rng = np.random.default_rng(seed)
    many = int(n * share)
    return sample(rng, n), np.concatenate([sample(rng, n - many), sample(rng, many, PLANTED)])
