"""Every text of the page once, packed so that a browser unpacks only what it shows or searches.

    columns.py → [texts] → page.py

Texts lie one after the other in chunks; a chunk is one deflated block. A browser cuts a chunk at
lengths in UTF-16 units, which is how it counts.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from zlib import compress

import numpy as np
from numpy.typing import NDArray

from rlaif.errors import DataError

SHORTEST = 40
"""Texts are not shortened below so many characters."""

_CHUNK = 1 << 19  # characters: few enough to unpack one within a frame, many enough to pack well
_SURROGATE = re.compile("[\ud800-\udfff]")
_LEVEL = 6
_TRIED = 400_000  # characters that a length is tried on before all are packed


@dataclass(slots=True)
class Texts:
    """Texts by number; equal texts have one number."""

    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        """The number of a text. Half of a UTF-16 pair, which no page can hold, becomes U+FFFD."""
        number = self.numbers.get(text)
        if number is None:
            clean = _SURROGATE.sub("\ufffd", text)
            number = self.numbers.setdefault(clean, len(self.numbers))
        return number

    @property
    def all(self) -> list[str]:
        """The texts in the order of their numbers."""
        return list(self.numbers)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Texts as the page holds them.

    Attributes:
        chunks: base64 of deflated UTF-8.
        ends: how many texts end at or before each chunk's end.
        lengths: [texts] in UTF-16 units.
        longest: texts of more characters were shortened; None: none was.
        shortened: how many were.
    """

    chunks: list[str]
    ends: list[int]
    lengths: NDArray[np.uint32]
    longest: int | None
    shortened: int

    @property
    def size(self) -> int:
        """Characters of all chunks."""
        return sum(map(len, self.chunks))


def pack_array(values: NDArray[np.generic]) -> str:
    """An array as base64 of its deflated little-endian bytes."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return b64encode(compress(little.tobytes(), _LEVEL)).decode()


def pack_texts(texts: Sequence[str], budget: int) -> Packed:
    """Pack texts into at most so many characters; where they are too many, shorten the longest.

    Raises:
        DataError: they do not fit even at `SHORTEST`.
    """
    packed = _pack(texts, None)
    longest = max(map(len, texts), default=0)
    while packed.size > budget:
        if longest <= SHORTEST:
            raise DataError(
                "the texts do not fit", key="limit", value=budget,
                mend=f"allow {packed.size:,} bytes for them, or report on fewer rows",
            )  # fmt: skip
        longest = max(SHORTEST, min(_fitting(texts, budget, packed.size), longest * 9 // 10))
        packed = _pack(texts, longest)
    return packed


def _pack(texts: Sequence[str], longest: int | None) -> Packed:
    shown = [_short(text, longest) for text in texts]
    chunks, ends, size, start = [], [], 0, 0
    for place, text in enumerate(shown, 1):
        size += len(text)
        if size >= _CHUNK or place == len(shown):
            chunks.append(_chunk(shown[start:place]))
            ends.append(place)
            size, start = 0, place
    lengths = np.array([_units(text) for text in shown], np.uint32)
    cut = 0 if longest is None else sum(len(text) > longest for text in texts)
    return Packed(chunks, ends, lengths, longest, cut)


def _chunk(texts: Sequence[str]) -> str:
    return b64encode(compress("".join(texts).encode(), _LEVEL)).decode()


def _short(text: str, longest: int | None) -> str:
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _fitting(texts: Sequence[str], budget: int, size: int) -> int:
    """About the greatest length at which the texts fit, by a part of them spread over all."""
    step = max(1, sum(map(len, texts)) // _TRIED)
    part = texts[::step]
    room = budget / size * len(_chunk(part))
    low, high = SHORTEST, max(map(len, part), default=SHORTEST)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_chunk([_short(text, middle) for text in part])) <= room:
            low = middle
        else:
            high = middle - 1
    return low
