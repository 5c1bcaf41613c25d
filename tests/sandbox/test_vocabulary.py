"""The sandbox's tokenizer."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rlaif.sandbox import lessons, prompts
from rlaif.sandbox.answers import answer
from rlaif.sandbox.quickstart import HERE
from rlaif.sandbox.vocabulary import build_tokenizer

TOKENIZER = build_tokenizer()


@given(st.integers(0, 2**32), st.sampled_from(prompts.KINDS))
@settings(max_examples=100, deadline=None)
def test_everything_the_world_says_comes_back_as_it_was(seed: int, kind: prompts.Kind) -> None:
    rng = random.Random(seed)
    prompt = prompts.draw(rng, kind)
    for text in (prompt, answer(prompt, {}, rng)):
        ids = TOKENIZER(text, add_special_tokens=False).input_ids
        assert TOKENIZER.decode(ids) == text


def test_no_lesson_has_an_unknown_word() -> None:
    rng = random.Random(0)
    for _ in range(50):
        prompt = prompts.draw(rng, rng.choice(prompts.KINDS))
        for lesson in (
            lessons.pointwise(prompt, 12, rng),
            lessons.pairwise(prompt, 8, rng),
            lessons.rating(prompt, 4, rng),
            lessons.reasoned(prompt, rng),
            lessons.reasoned_pair(prompt, rng),
            lessons.spoken(prompt, rng),
            lessons.new_prompt(rng),
        ):
            for text in (text for asked in lesson.asked for text in asked):
                ids = TOKENIZER(text, add_special_tokens=False).input_ids
                assert TOKENIZER.unk_token_id not in ids, text


def test_the_shipped_models_have_this_tokenizer() -> None:
    for name in ("student", "teacher"):
        shipped = AutoTokenizer.from_pretrained(HERE / "models" / name)
        assert shipped.get_vocab() == TOKENIZER.get_vocab()
        assert shipped.chat_template == TOKENIZER.chat_template
