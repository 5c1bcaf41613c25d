"""Texts whose place beside human anchors is known: what the filters against collapse are tried on.

planted_texts.jsonl holds what people would write; this file makes the rest of it by program. Parts:

- anchor: 32 topics, 37 texts each.
- dense: 37 more a topic, each beside something that the anchors of the topic are about. Some 130
  that lay far from all the others were written anew. Neither new nor tried_new was read for them;
  the writer still had some of the same thoughts.
- broad: 36 more a topic, each about something that the anchors of the topic leave out.
- new: other content on the same topics, written by someone who had seen no other text; those that
  share 0.35 or more of their character 3-grams with an anchor are not scored.
- off_topic: 28 other topics, likewise.
- tried_new, tried_off_topic: the same, of others, but looked at while the filter was made.
- rewording: the content of an anchor (`of`) in other words.
- fit: 10 further topics, for choosing what a filter is made of; nothing is scored on them.
- informative, empty: sentences that say something, and that do not; fit_informative and fit_empty
  are for fitting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from rlaif.filters.fluency import shuffled

_FILE = Path(__file__).with_suffix(".jsonl")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BEFORE = ("Please tell me: ", "Hello, ", "Could you help? ", "Quick question. ", "For school: ")
_AFTER = (" Thank you.", " Thanks a lot!", " Please keep it short.", " Answer in English.")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Planted:
    """A text, the part it belongs to and its topic; of a rewording the anchor that it rewords."""

    topic: str
    part: str
    text: str
    of: str = ""


def planted() -> list[Planted]:
    """All texts of the file."""
    return [Planted(**json.loads(line)) for line in _FILE.read_text(encoding="utf-8").splitlines()]


def texts_of(part: str, rows: Sequence[Planted]) -> list[str]:
    """The texts of one part."""
    return [row.text for row in rows if row.part == part]


def words_of(texts: Sequence[str]) -> list[str]:
    """Every word as often as it occurs, without punctuation."""
    return [word for text in texts for word in _WORD.findall(text)]


def near_copies(texts: Sequence[str], seed: int = 0) -> dict[str, list[str]]:
    """For each kind of edit, the texts of six or more words with one of that kind."""
    long = [text for text in texts if len(text.split()) >= 6]
    vocabulary = sorted(set(words_of(texts)))
    made = {}
    for kind, edit in _EDITS.items():
        rng = Random(f"{seed} {kind}")
        made[kind] = [edit(text, rng, vocabulary) for text in long]
    return made


def shuffles(texts: Sequence[str], seed: int = 0) -> list[str]:
    """The words of each text in another order."""
    rng = Random(f"{seed} shuffle")
    return [shuffled(text, rng) for text in texts]


def random_words(words: Sequence[str], texts: int, seed: int = 0) -> list[str]:
    """So many texts of 6 to 18 words, drawn one by one."""
    rng = Random(f"{seed} words")
    return [" ".join(rng.choices(words, k=rng.randint(6, 18))).capitalize() for _ in range(texts)]


def topic_words(rows: Sequence[Planted], each: int, seed: int = 0) -> list[str]:
    """Random words of one topic's anchors, `each` texts a topic: salad that is about something."""
    topics: dict[str, list[str]] = {}
    for row in rows:
        if row.part == "anchor":
            topics.setdefault(row.topic, []).append(row.text)
    return [
        text
        for topic, texts in topics.items()
        for text in random_words(words_of(texts), each, sum(map(ord, topic)) + seed)
    ]


Edit = Callable[[str, Random, Sequence[str]], str]


def _case(text: str, rng: Random, _: Sequence[str]) -> str:
    return rng.choice([text.upper(), text.lower(), text.title()])


def _punctuation(text: str, rng: Random, _: Sequence[str]) -> str:
    bare = text.rstrip(".?!")
    return rng.choice([bare, f"{text}!!", f"{bare} ...", text.replace(" ", ", ", 1), f'"{text}"'])


def _prefix(text: str, rng: Random, _: Sequence[str]) -> str:
    return rng.choice(_BEFORE) + text[0].lower() + text[1:]


def _suffix(text: str, rng: Random, _: Sequence[str]) -> str:
    return text + rng.choice(_AFTER)


def _typo(text: str, rng: Random, _: Sequence[str]) -> str:
    words = text.split()
    i = rng.choice([i for i, word in enumerate(words) if len(word) > 3])
    word, letter = words[i], rng.choice(_LETTERS)
    k = rng.randrange(len(word) - 1)
    words[i] = rng.choice([
        word[:k] + word[k + 1 :],
        word[:k] + word[k + 1] + word[k] + word[k + 2 :],
        word[:k] + letter + word[k:],
        word[:k] + letter + word[k + 1 :],
    ])  # fmt: skip
    return " ".join(words)


def _dropped(text: str, rng: Random, _: Sequence[str]) -> str:
    words = text.split()
    del words[rng.randrange(len(words))]
    return " ".join(words)


def _replaced(text: str, rng: Random, vocabulary: Sequence[str]) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = rng.choice(vocabulary)
    return " ".join(words)


_EDITS: dict[str, Edit] = {
    "case": _case, "punctuation": _punctuation, "prefix": _prefix, "suffix": _suffix,
    "typo": _typo, "word dropped": _dropped, "word replaced": _replaced,
}  # fmt: skip
