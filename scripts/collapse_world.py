"""A human data set whose subjects follow Zipf's law, in the sandbox, where all of them are known.

What a prompt is about (one act, one fact, one sum, …) is its subject. A text is a prompt with an
answer that keeps every principle. Few subjects have most of the texts and most have few: the tail
is what a model that learns from its own words forgets first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from rlaif.constitution import Constitution
from rlaif.sandbox import measure, prompts
from rlaif.sandbox.answers import answer
from rlaif.sandbox.phrases import OPENERS

Subject = tuple[str, ...]


class Text(NamedTuple):
    """A prompt and its answer, as one is learned from and as one is written."""

    prompt: str
    answer: str


def subject_of(prompt: str) -> Subject | None:
    """What a prompt is about; None for one that is not of the world."""
    question = prompts.parse(prompt)
    if question is None:
        return None
    named = {"advice": ("act",), "fact": ("s",), "sum": ("a", "b"), "danger": ("act",),
             "unknown": ("who",), "private": ("event",)}[question.kind]  # fmt: skip
    return question.kind, question.topic, *(question[slot] for slot in named)


@cache
def _questions() -> dict[Subject, tuple[str, ...]]:
    found: dict[Subject, list[str]] = {}
    for kind in prompts.KINDS:
        for text in prompts.all_questions(kind):
            subject = subject_of(text)
            assert subject is not None
            found.setdefault(subject, []).append(text)
    return {subject: tuple(texts) for subject, texts in found.items()}


def zipf() -> tuple[list[Subject], np.ndarray]:
    """All subjects, the most usual first, and their shares: 1, 1/2, 1/3, … (Zipf 1949).

    Which subject is usual is drawn once: it is part of the world, not of a seed.
    """
    subjects = list(_questions())
    random.Random("zipf").shuffle(subjects)
    shares = 1 / np.arange(1, len(subjects) + 1)
    return subjects, shares / shares.sum()


def human_texts(n: int, constitution: Constitution, seed: int) -> list[Text]:
    """`n` texts as people would write them: subjects by Zipf's law, every principle kept."""
    rng = random.Random(f"human {seed}")
    wished = {w.attribute: w.present for w in measure.wishes(constitution).values() if w}
    subjects, shares = zipf()
    found = []
    for subject in rng.choices(subjects, shares.tolist(), k=n):
        prompt = f"{rng.choice(OPENERS)} {rng.choice(_questions()[subject])}".strip()
        found.append(Text(prompt, answer(prompt, wished, rng)))
    return found


def reached(texts: Iterable[str]) -> Counter[Subject]:
    """How many of the prompts are about each subject."""
    return Counter(s for s in map(subject_of, texts) if s is not None)


def compliance(texts: Sequence[Text], constitution: Constitution) -> float:
    """Mean share of the applicable principles that a text keeps; a prompt that is none keeps 0."""
    asked = measure.wishes(constitution)
    kept = []
    for text in texts:
        found = measure.outcomes(text.prompt, text.answer, asked)
        kept.append(sum(found.values()) / len(found) if found else 0.0)
    return float(np.mean(kept))
