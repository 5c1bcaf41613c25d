from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rlaif.embed import Vectors
from rlaif.errors import DataError
from rlaif.filters.bertscore import bertscore, idf

WORDS = ["a", "b", "c", "the"]


def tokens(texts: Sequence[str]) -> list[Vectors]:
    """Every word another direction."""
    one = np.eye(4, dtype=np.float32)
    return [one[[WORDS.index(word) for word in text.split()]] for text in texts]


def test_greedy_matches_make_precision_recall_and_their_harmonic_mean() -> None:
    found = bertscore(["a b"], ["a", "a b c the"], np.array([[0, 1]]), tokens)
    assert found.precision.tolist() == [[0.5, 1.0]]
    assert found.recall.tolist() == [[1.0, 0.5]]
    assert found.f1[0] == pytest.approx([2 / 3, 2 / 3])


def test_the_order_of_words_is_not_seen_by_words_out_of_context() -> None:
    found = bertscore(["b a"], ["a b"], np.array([[0]]), tokens)
    assert found.f1.tolist() == [[1.0]]


def test_a_text_without_words_has_no_score_and_the_others_have() -> None:
    found = bertscore(["!", "a"], ["a"], np.array([[0], [0]]), tokens)
    assert np.isnan(found.f1[0, 0]) and found.f1[1, 0] == 1


def test_idf_makes_words_that_all_anchors_have_weigh_nothing() -> None:
    anchors = ["the a", "the b", "the c"]
    weights = idf(anchors, str.split)
    assert weights["the"] == 0 < weights["a"]
    found = bertscore(
        ["the c"], anchors, np.array([[0, 2]]), tokens, weights=weights, pieces=str.split
    )
    assert found.f1.tolist() == [[0.0, 1.0]]


def test_weights_without_pieces_and_pieces_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(DataError, match="go together"):
        bertscore(["a"], ["a"], np.array([[0]]), tokens, weights={"a": 1.0})
    with pytest.raises(DataError, match="pieces and"):
        bertscore(
            ["a b"], ["a"], np.array([[0]]), tokens, weights={"a": 1.0}, pieces=lambda t: [t[0]]
        )
