from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.embed import Embedder
from rlaif.errors import DataError
from rlaif.filters.density import SPARSE, Density, fit_density, load_density, prune
from rlaif.filters.linear import Linear
from rlaif.filters.sentences import sentences

TOLD = [f"The {thing} weighs {n} kilograms and was built in 19{n}."
        for n, thing in enumerate(["bridge", "engine", "drum", "mill"] * 6, 20)]  # fmt: skip
SAID = [f"{start} {end}" for start in ("I hope", "Of course", "Truly", "In short", "Well,")
        for end in ("this helps you.", "it depends.", "there is a lot to consider.",
                    "that is a great question!", "everyone is different.")]  # fmt: skip


@pytest.fixture(scope="module")
def embed() -> Embedder:
    return Embedder()


@pytest.fixture(scope="module")
def density(embed: Embedder) -> Density:
    return fit_density(TOLD, SAID, embed)


def test_empty_sentences_go_and_the_rest_keeps_its_spaces_and_code(
    embed: Embedder, density: Density
) -> None:
    text = (
        "The crane weighs 90 kilograms.  I hope this helps you. The mill was built in 1930.\n\n"
        "```\nI hope. This helps.\n```\n"
    )
    pruned = prune([text], ["a"], density, embed)
    assert pruned.texts == (text.replace("I hope this helps you. ", ""),)
    assert pruned.removed == (("I hope this helps you.",),)


def test_a_response_of_little_else_is_dropped_and_kept_with_its_reason(
    embed: Embedder, density: Density
) -> None:
    pruned = prune(["I hope this helps. Of course it depends.", " "], ["a", "b"], density, embed)
    assert [(d.id, d.reason) for d in pruned.drops] == [("a", SPARSE), ("b", "empty text")]
    assert pruned.kept == ()


def test_another_embedding_model_is_refused(
    embed: Embedder, density: Density, tmp_path: Path
) -> None:
    file = tmp_path / "density.json"
    density.save(file)
    same = load_density(file, embed.fingerprint).linear
    assert np.array_equal(same.weights, density.linear.weights)
    with pytest.raises(DataError, match="another embedding model"):
        load_density(file, "0" * 16)
    with pytest.raises(DataError, match="another embedding model"):
        prune(["a"], ["a"], Density(Linear(np.zeros(384), 0.0, "0" * 16)), embed)
    file.write_text("{}")
    with pytest.raises(DataError, match="not a classifier"):
        load_density(file, embed.fingerprint)


def test_too_few_sentences_are_one_line(embed: Embedder) -> None:
    with pytest.raises(DataError, match="too few sentences"):
        fit_density(TOLD[:5], SAID, embed)


def test_sentences_end_where_they_do() -> None:
    text = 'Dr. Smith paid 3.5 euros, e.g. today. "Why?" she asked. Go!\n1. One. Two.\n今日は。雨？'
    assert [piece.strip() for piece in sentences(text)] == [
        "Dr. Smith paid 3.5 euros, e.g. today.", '"Why?" she asked.', "Go!", "1. One.", "Two.",
        "今日は。", "雨？",
    ]  # fmt: skip


@given(st.text(alphabet='aB.!? \n`。"1'))
def test_sentences_add_up_to_their_text(text: str) -> None:
    assert "".join(sentences(text)) == text
