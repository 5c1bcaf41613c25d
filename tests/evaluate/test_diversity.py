from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.evaluate.diversity import cut, distinct, token_entropy, vendi

TEXTS = st.lists(st.text("abcd", min_size=1, max_size=9), min_size=1, max_size=9)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 12), st.integers(0, 8))
@settings(max_examples=25, deadline=None)
def test_the_vendi_score_of_n_orthogonal_texts_is_n_and_of_n_identical_is_1(
    n: int, more: int
) -> None:
    eye = np.eye(n, n + more, dtype=np.float32)
    assert vendi(eye) == pytest.approx(n)
    assert vendi(np.repeat(eye[:1], n, axis=0)) == pytest.approx(1)
    assert vendi(np.repeat(eye, 3, axis=0)) == pytest.approx(n)  # copies add nothing


@given(st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_vendi_score_is_that_of_the_whole_similarity_matrix(n: int, seed: int) -> None:
    rows = unit(np.random.default_rng(seed).normal(size=(n, 8)))
    shares = np.linalg.eigvalsh((rows @ rows.T).astype(np.float64) / n).clip(min=1e-300)
    assert vendi(rows) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    assert vendi(rows) + 1e-9 >= 1 and vendi(rows) <= min(n, 8) + 1e-6
    assert vendi(rows[::-1]) == pytest.approx(vendi(rows))


@given(TEXTS, st.data())
def test_a_cut_has_just_so_many_tokens_of_whole_texts_but_the_last(
    texts: list[str], data: st.DataObject
) -> None:
    total = sum(map(len, texts))
    n = data.draw(st.integers(0, total))
    found = cut(texts, n, np.random.default_rng(0))
    assert sum(map(len, found)) == n
    assert all(text in texts for text in found[:-1])
    with pytest.raises(ValueError, match="tokens, not"):
        cut(texts, total + 1, np.random.default_rng(0))


def test_token_entropy_is_in_nats_and_blind_to_order() -> None:
    assert token_entropy(["aabb", "ab"]) == pytest.approx(math.log(2))
    assert token_entropy(["ab"]) == token_entropy(["ba"])
    assert token_entropy(["aaaa"]) == 0.0
    assert math.isnan(token_entropy([""]))


def test_distinct_counts_ngrams_inside_texts_alone() -> None:
    assert distinct(["abab"], 1) == 0.5
    assert distinct(["abab"], 2) == pytest.approx(2 / 3)
    assert distinct(["ab", "ab"], 2) == 0.5  # and no "ba" between them
    assert math.isnan(distinct(["ab"], 3))
