"""A text cut into sentences that add up to it again. Under filters/density.py.

Every character stays: the pieces joined are the text. Cut is at a line break, and after a full
stop, question or exclamation mark where a new sentence can begin; not after an abbreviation, an
initial, the number of a list, or within a number. A block of code is one piece.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$\n?|^(```|~~~).*\Z", re.M | re.S)
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_]*(?=\s)|[。！？｡]+[”’」』）]*|[।۔؟]+(?=\s)")
_SPACE = re.compile(r"\s*")
_ABBREVIATED = frozenset(
    [
        "a.m", "al", "approx", "bzw", "ca", "cf", "d.h", "dec", "dept", "dr", "e.g", "eds", "est",
        "feb", "fig", "figs", "i.e", "jan", "jr", "mr", "mrs", "ms", "nov", "oct", "p.m", "pp",
        "prof", "rev", "sept", "sr", "st", "u.k", "u.s", "usw", "vol", "vols", "vs", "z.b"
    ]
)  # fmt: skip
_NUMBERED = re.compile(r"^\s*(?:\d{1,3}|[A-Za-z])$")
_LAST_WORD = re.compile(r"(\S+)$")
_LOOKED_AT = 40  # characters before a mark


def sentences(text: str) -> list[str]:
    """The pieces of a text, each with the space that follows it."""
    pieces, at = [], 0
    for fence in _FENCE.finditer(text):
        pieces += _prose(text[at : fence.start()])
        pieces.append(fence.group())
        at = fence.end()
    return [piece for piece in [*pieces, *_prose(text[at:])] if piece]


def is_code(piece: str) -> bool:
    """Whether a piece is a block of code."""
    return piece.startswith(("```", "~~~"))


def _prose(text: str) -> list[str]:
    return [s for line in text.splitlines(keepends=True) for s in _line(line)]


def _line(line: str) -> list[str]:
    pieces, start = [], 0
    for end in _END.finditer(line):
        stop = _after(line, end.end())
        following = line[stop : stop + 1]
        before = line[max(start, end.start() - _LOOKED_AT) : end.start()]
        if following and not _goes_on(before, end.group(), following):
            pieces.append(line[start:stop])
            start = stop
    return [*pieces, line[start:]]


def _after(line: str, at: int) -> int:
    """Where the space that begins at a place ends."""
    found = _SPACE.match(line, at)
    return found.end() if found else at


def _goes_on(before: str, mark: str, following: str) -> bool:
    """Whether the sentence goes on behind the mark, with the character that follows."""
    word = _LAST_WORD.search(before)
    last = word.group().lstrip("([\"'“*_").casefold() if word else ""
    if mark == "." and (_NUMBERED.match(before) or last in _ABBREVIATED or _initial(last)):
        return True
    # "Why?" she asked: a question within a sentence.
    return (mark[0] in ".…" or mark[-1] in "\"'”’»") and following.islower()


def _initial(word: str) -> bool:
    return len(word) == 1 and word.isalpha() and word != "i"
