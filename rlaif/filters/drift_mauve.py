"""How much two samples overlap, by MAUVE, beside how much two human samples of that size do.

A second opinion next to drift.py. MAUVE (Pillutla et al. 2021, arXiv:2102.01454) falls with the
size of the samples: a value means nothing without the one that humans reach against humans.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlaif.embed import Vectors
from rlaif.errors import DataError, MissingExtraError
from rlaif.filters.drift import FEWEST, check_sides


@dataclass(frozen=True, slots=True)
class Mauve:
    """MAUVE, 0 to 1, of samples of one size.

    Attributes:
        human_synthetic: of human against synthetic texts.
        human_human: of human against other human texts.
        texts: a side, in both.
    """

    human_synthetic: float
    human_human: float
    texts: int

    def __str__(self) -> str:
        return (
            f"MAUVE {self.human_synthetic:.3f}; human against human {self.human_human:.3f} "
            f"({self.texts} texts a side)"
        )


def mauve(human: Vectors, synthetic: Vectors, *, most: int = 5000, seed: int = 0) -> Mauve:
    """Two values by the library `mauve-text`, with its own settings, at one size.

    The human texts are split at random; one half stands against the synthetic texts and against
    the other half.

    Args:
        human: [n, width], twice `FEWEST` or more.
        synthetic: [m, width], `FEWEST` or more.
        most: texts a side; the library's time grows with their square.
        seed: of the split and of the library's clusters.

    Raises:
        DataError: too few texts, two widths, embeddings that are not finite or all the same.
        MissingExtraError: the library, which is under the GPL, is not installed.
    """
    check_sides(human, synthetic)
    if len(human) < 2 * FEWEST:
        raise DataError(
            "too few texts to set against each other", key="human", value=len(human),
            mend=f"give {2 * FEWEST} or more",
        )  # fmt: skip
    if (human == human[0]).all():
        raise DataError("the texts are all the same", key="human", mend="give texts that differ")
    rng = np.random.default_rng(seed)
    texts = min(len(human) // 2, len(synthetic), most)
    mixed = human[rng.permutation(len(human))]
    first, second = mixed[:texts], mixed[texts : 2 * texts]
    other = synthetic[rng.permutation(len(synthetic))[:texts]]
    return Mauve(_mauve(first, other, seed), _mauve(first, second, seed), texts)


def _mauve(p: Vectors, q: Vectors, seed: int) -> float:
    try:
        from mauve import compute_mauve
    except ModuleNotFoundError as error:
        raise MissingExtraError("MAUVE", "mauve") from error
    with _quiet():
        return float(compute_mauve(p_features=p, q_features=q, seed=seed).mauve)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence for faiss, which warns from C of few points a cluster: that is MAUVE's own choice."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
