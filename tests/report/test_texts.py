"""Texts come out of the page as they went in, and a page that is too large says what it cut."""

from __future__ import annotations

import random
from base64 import b64decode
from zlib import decompress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import DataError
from rlaif.report.texts import SHORTEST, Packed, Texts, pack_array, pack_texts


def unpacked(packed: Packed) -> list[str]:
    """As a browser does it: chunks cut at lengths in UTF-16 units."""
    found, first = [], 0
    for chunk, end in zip(packed.chunks, packed.ends, strict=True):
        units = decompress(b64decode(chunk)).decode().encode("utf-16-le")
        for length in packed.lengths[first:end]:
            found.append(units[: 2 * length].decode("utf-16-le"))
            units = units[2 * length :]
        assert not units
        first = end
    return found


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_texts_come_out_as_they_went_in(texts: list[str]) -> None:
    packed = pack_texts(texts, 10**9)
    assert unpacked(packed) == texts
    assert packed.longest is None and packed.shortened == 0


def test_many_texts_are_cut_into_chunks() -> None:
    texts = [f"{i} " + "word " * 200 for i in range(2000)]
    packed = pack_texts(texts, 10**9)
    assert len(packed.chunks) > 2 and packed.ends[-1] == 2000
    assert unpacked(packed) == texts


def test_equal_texts_are_kept_once_and_half_a_pair_is_replaced() -> None:
    texts = Texts()
    numbers = [texts.add(t) for t in ("a", "b", "a", "bad \ud83d", "bad \ud83d", "bad \ufffd", "")]
    assert numbers == [0, 1, 0, 2, 2, 2, 3]
    assert texts.all == ["a", "b", "bad \ufffd", ""]


def noise(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("abcdefghijklmnop ", k=length))


def test_the_longest_are_shortened_to_fit_and_no_more_than_has_to_be() -> None:
    texts = [noise(80, i) for i in range(200)] + [noise(20_000, 1000 + i) for i in range(20)]
    whole = pack_texts(texts, 10**9).size
    budget = whole // 2
    packed = pack_texts(texts, budget)
    assert 0.8 * budget < packed.size <= budget
    shown = unpacked(packed)
    assert len(shown) == len(texts) and shown[:200] == texts[:200]
    assert packed.shortened == 20 and packed.longest
    for short, text in zip(shown[200:], texts[200:], strict=True):
        assert len(short) == packed.longest and short.endswith("…")
        assert text.startswith(short[:-1])


def test_what_cannot_be_shortened_to_fit_is_an_error() -> None:
    with pytest.raises(DataError, match="do not fit"):
        pack_texts([noise(SHORTEST, i) for i in range(500)], 1000)


def test_an_array_is_little_endian_wherever_it_was_made() -> None:
    big = np.array([1, 2, 70_000], ">u4")
    assert np.frombuffer(decompress(b64decode(pack_array(big))), "<u4").tolist() == [1, 2, 70_000]
