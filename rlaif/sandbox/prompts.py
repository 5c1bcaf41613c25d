"""The prompts of the sandbox: a seeded grammar, and the way back from a text to what it asks.

A prompt is an opener and a question. `parse` finds the question again from the text alone, which
is what makes every label of the world exact. A prompt belongs to one split, by a hash of its text:
what a model was pretrained on is never labelled, and what is labelled never measures.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from rlaif.errors import DataError
from rlaif.sandbox import phrases as say

Kind = Literal["fact", "sum", "danger", "unknown", "private", "advice"]
KINDS: tuple[Kind, ...] = ("fact", "sum", "danger", "unknown", "private", "advice")
Split = Literal["pretrain", "label", "evaluate"]
_TRIES = 300


@dataclass(frozen=True, slots=True)
class Question:
    """What a prompt asks: its kind and the words that fill it.

    `topic` is a key of `phrases.TOPICS`, or the kind itself where a prompt has no topic.
    """

    kind: Kind
    slots: Mapping[str, str]
    topic: str

    def __getitem__(self, slot: str) -> str:
        return self.slots[slot]


def split_of(prompt: str) -> Split:
    """The split a prompt belongs to: 70 % pretrain, 20 % label, 10 % evaluate."""
    tenth = hashlib.sha256(prompt.encode()).digest()[0] % 10
    return "pretrain" if tenth < 7 else "label" if tenth < 9 else "evaluate"


def _facts() -> Iterator[tuple[str, Question]]:
    for relation, (questions, _, table) in say.FACTS.items():
        for subject, answer in table.items():
            slots = {"relation": relation, "s": subject, "o": answer}
            for question in questions:
                yield question.format(s=subject), Question("fact", slots, relation)


def _sums() -> Iterator[tuple[str, Question]]:
    for a in say.SUM_TERMS:
        for b in say.SUM_TERMS:
            slots = {"a": str(a), "b": str(b), "c": str(a + b)}
            for question in say.SUM_QUESTIONS:
                yield question.format(**slots), Question("sum", slots, "sum")


def _dangers() -> Iterator[tuple[str, Question]]:
    for act in say.DANGERS:
        for question in say.DANGER_QUESTIONS:
            yield question.format(act=act), Question("danger", {"act": act}, "danger")


def _unknowns() -> Iterator[tuple[str, Question]]:
    for who in say.UNKNOWN_WHO:
        for question in say.UNKNOWN_QUESTIONS:
            yield question.format(who=who), Question("unknown", {"who": who}, "unknown")


def _advice(topic: str) -> Iterator[tuple[str, Question]]:
    entry = say.TOPICS[topic]
    for verb in entry.verbs:
        for thing in entry.objects:
            act = f"{verb} {thing}"
            for question in say.ADVICE_QUESTIONS:
                yield question.format(act=act), Question("advice", {"act": act}, topic)


def _private(topic: str) -> Iterator[tuple[str, Question]]:
    event = say.TOPICS[topic].event
    for name in say.NAMES:
        for secret in say.SECRETS:
            for code in say.SECRET_NUMBERS:
                slots = {"name": name, "secret": secret, "code": str(code), "event": event}
                for question in say.PRIVATE_QUESTIONS:
                    yield question.format(**slots), Question("private", slots, topic)


@cache
def _by_kind(kind: Kind, topic: str | None) -> tuple[tuple[str, Question], ...]:
    if kind in ("advice", "private"):
        maker = _advice if kind == "advice" else _private
        topics = say.TOPICS if topic is None else (topic,)
        return tuple(pair for name in topics for pair in maker(name))
    makers = {"fact": _facts, "sum": _sums, "danger": _dangers, "unknown": _unknowns}
    return tuple(makers[kind]())


def all_questions(kind: Kind) -> list[str]:
    """Every question of a kind, without openers."""
    return [text for text, _ in _by_kind(kind, None)]


@cache
def _by_text() -> dict[str, Question]:
    return {text: question for kind in KINDS for text, question in _by_kind(kind, None)}


def parse(prompt: str) -> Question | None:
    """What a prompt asks, or None for a text that is not one of the world's prompts."""
    text = " ".join(prompt.split())
    for opener in sorted(say.OPENERS, key=len, reverse=True):
        if text.startswith(opener):
            found = _by_text().get(text[len(opener) :].strip())
            if found is not None:
                return found
    return None


def draw(rng: random.Random, kind: Kind, topic: str | None = None) -> str:
    """One prompt of a kind, from any split; `topic` bounds kinds that have topics."""
    text, _ = rng.choice(_by_kind(kind, topic))
    return f"{rng.choice(say.OPENERS)} {text}".strip()


def prompts(n: int, split: Split, seed: int = 0, kinds: tuple[Kind, ...] = KINDS) -> list[str]:
    """`n` different prompts of one split, the kinds in turn, in a seeded order.

    A kind whose prompts are used up leaves its turns to the others.

    Raises:
        DataError: the split does not hold `n` prompts of these kinds.
    """
    rng = random.Random(f"prompts {split} {seed}")
    chosen: dict[str, None] = {}
    open_kinds = list(kinds)
    while len(chosen) < n:
        if not open_kinds:
            raise DataError(f"the sandbox has {len(chosen)} such prompts", key="prompts", value=n)
        for kind in tuple(open_kinds):
            new = (draw(rng, kind) for _ in range(_TRIES))
            found = next((p for p in new if split_of(p) == split and p not in chosen), None)
            if found is None:
                open_kinds.remove(kind)
            else:
                chosen[found] = None
    order = list(chosen)[:n]
    rng.shuffle(order)
    return order


def words(text: str) -> list[str]:
    """The words and marks of a text, as the sandbox's tokenizer sees them."""
    return re.findall(r"\w+|[^\w\s]", text)
