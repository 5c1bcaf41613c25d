from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import DataError
from rlaif.filters.drift_ngrams import count_ngrams, words


def test_words_and_marks_are_tokens_in_any_script() -> None:
    assert words("Don't stop, 3.5!") == ["Don", "'", "t", "stop", ",", "3", ".", "5", "!"]
    assert words("Привет, мир") == ["Привет", ",", "мир"]
    assert words("我爱abc你") == ["我", "爱", "abc", "你"]


def test_pairs_of_words_are_counted_and_a_single_word_counts_as_itself() -> None:
    counts = count_ngrams(["a b a b", "a", "c"], n=2)
    assert sorted(counts.toarray().sum(0).tolist()) == [0, 1, 1, 1, 2]  # the last: no others


def test_what_few_texts_say_shares_the_last_column() -> None:
    counts = count_ngrams(["a a x", "a y", "z b", "b"], n=1, most=2).toarray()
    assert counts.tolist() == [[2, 0, 1], [1, 0, 1], [0, 1, 1], [0, 1, 0]]


@given(st.lists(st.text("abc ", max_size=12), max_size=12), st.randoms(use_true_random=False))
def test_columns_do_not_depend_on_the_order_of_texts(texts: list[str], turn: random.Random) -> None:
    texts = [*texts, "a b"]
    order = list(range(len(texts)))
    turn.shuffle(order)
    plain, mixed = (
        count_ngrams(said, most=3).toarray() for said in (texts, [texts[i] for i in order])
    )
    assert plain[order].tolist() == mixed.tolist()


def test_a_tokenizer_of_the_users_own_makes_the_tokens() -> None:
    counts = count_ngrams(["xyx", "x"], n=1, tokenize=lambda text: [ord(c) for c in text])
    assert counts.toarray().tolist() == [[2, 1, 0], [1, 0, 0]]


def test_a_book_counts_for_no_more_than_its_beginning() -> None:
    read: list[str] = []

    def ids(text: str) -> list[str]:
        read.append(text)
        return text.split()

    long = "word " * 2_000_000
    for counts in (count_ngrams([long], n=1), count_ngrams([long], n=1, tokenize=ids)):
        assert counts.sum() == 4096
    assert len(read[0]) < 200_000


def test_nothing_to_count_is_an_error_of_one_line() -> None:
    with pytest.raises(DataError, match="no text has a token"):
        count_ngrams(["", " "])
    with pytest.raises(DataError, match=r"ngram: must be 1 or more \(got 0\)"):
        count_ngrams(["a"], n=0)
