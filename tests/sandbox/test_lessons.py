"""What is true of a lesson, whatever is drawn."""

from __future__ import annotations

import random
from collections import Counter

from rlaif.sandbox import forms, lessons


def test_where_neither_answer_is_better_a_coin_decides() -> None:
    rng = random.Random(0)
    said: Counter[str] = Counter()
    unasked = 0
    for _ in range(60):
        lesson = lessons.tied(lessons.pretraining_prompt(rng), 8, rng)
        one, two = lesson.traits
        for (_, answer), (_, wish) in zip(lesson.asked, lesson.principles, strict=True):
            assert forms.verdict(wish, one) == forms.verdict(wish, two)
            said[answer] += 1
            unasked += wish.attribute not in one
    assert set(said) == {"A", "B"} and 0.4 < said["A"] / said.total() < 0.6
    # Principles that do not apply to the prompt are among them.
    assert unasked > said.total() / 4
