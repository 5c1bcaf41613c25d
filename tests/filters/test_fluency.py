from __future__ import annotations

from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest

from rlaif.embed import Embedder
from rlaif.errors import DataError
from rlaif.filters.fluency import Fluency, contrasts, fit_fluency, load_fluency, shuffled

TEXTS = [
    f"{ask} {thing} {when}?"
    for ask, thing, when in product(
        ("How do I clean the", "What is the best way to paint a", "Why should we not sell the"),
        ("boat", "garden fence", "old piano", "bicycle", "kitchen table", "wooden floor"),
        ("before the winter", "in the rain", "with a friend", "for my mother"),
    )
]
OTHER = [
    "How do I feed the horse in the rain?", "What is the best way to carry a lamp with a child?",
    "Why should we not visit the museum before the lesson?",
    "How do I lift the stone for a friend?",
]  # fmt: skip


@pytest.fixture(scope="module")
def embed() -> Embedder:
    return Embedder()


@pytest.fixture(scope="module")
def fluency(embed: Embedder) -> Fluency:
    return fit_fluency(TEXTS, embed)


def test_shuffles_of_texts_on_other_topics_are_salad_and_the_texts_are_not(
    embed: Embedder, fluency: Fluency
) -> None:
    salad = [shuffled(text, Random(i)) for i in range(5) for text in OTHER]
    assert not fluency.salad(OTHER, embed(OTHER).vectors).any()
    assert fluency.salad(salad, embed(salad).vectors).mean() >= 0.9


def test_it_learns_from_different_shuffles_of_each_text() -> None:
    made = set(contrasts(TEXTS))
    for text in TEXTS:
        words = sorted(text.rstrip("?").casefold().split())
        assert sum(sorted(salad.rstrip("?").casefold().split()) == words for salad in made) >= 2


def test_what_it_cannot_judge_is_not_salad(embed: Embedder, fluency: Fluency) -> None:
    texts = ["Yes", "今日は とても いい 天気 です", "Привет как у вас дела"]
    vectors = embed(texts).vectors
    assert np.isnan(fluency.scores(texts, vectors)).all()
    assert not fluency.salad(texts, vectors).any()


def test_saved_it_says_the_same_and_another_model_is_refused(
    embed: Embedder, fluency: Fluency, tmp_path: Path
) -> None:
    file = tmp_path / "fluency.json"
    fluency.save(file)
    vectors = embed(OTHER).vectors
    loaded = load_fluency(file, embed.fingerprint)
    assert np.array_equal(loaded.scores(OTHER, vectors), fluency.scores(OTHER, vectors))
    with pytest.raises(DataError, match="another embedding model"):
        load_fluency(file, "0" * 16)


def test_too_few_texts_are_one_line(embed: Embedder) -> None:
    with pytest.raises(DataError, match="too few texts"):
        fit_fluency(TEXTS[:10], embed)
