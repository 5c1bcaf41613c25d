"""What is true of a lesson, whatever is drawn."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.sandbox import forms, lessons, phrases, prompts
from rlaif.sandbox.answers import CORES, traits


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


@given(st.integers(0, 2**32), st.sampled_from(prompts.KINDS))
@settings(max_examples=150, deadline=None)
def test_a_near_miss_is_well_said_and_answers_something_else(seed: int, kind: prompts.Kind) -> None:
    rng = random.Random(seed)
    prompt = prompts.draw(rng, kind)
    said = lessons.near_miss(prompt, rng)
    if kind in ("danger", "unknown", "private"):
        assert said is None  # what suits one of these questions suits them all
        return
    assert said is not None
    found = traits(prompt, said)
    assert found is not None and found["form"] and not found[CORES[kind]]


def test_of_judged_answers_to_facts_sums_and_advice_the_asked_share_misses_the_question() -> None:
    rng = random.Random(0)
    shares = []
    for missed in (0.0, 0.5):
        texts = []
        for _ in range(300):
            prompt = prompts.draw(rng, "advice")
            texts.append((prompt, lessons.judged_answer(prompt, rng, busy=0.0, missed=missed)))
        # Of advice, a core that is bad otherwise is a refusal.
        bad = [
            not traits(prompt, text)["helpfulness"]  # type: ignore[index]
            and not any(refusal in text for refusal in phrases.REFUSALS)
            for prompt, text in texts
        ]
        shares.append(sum(bad) / len(bad))
    assert shares[0] == 0.0 and 0.4 < shares[1] < 0.6
