"""What the world says about its own answers."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.sandbox import forms, prompts
from rlaif.sandbox.answers import ATTRIBUTES, CORES, answer, traits
from rlaif.sandbox.principles import Wish

PROMPT, RESPONSE = "What is 3 plus 4?", "Hello there. That makes 8."


def found() -> dict[str, bool]:
    labels = traits(PROMPT, RESPONSE)
    assert labels is not None
    return labels


def test_a_principle_that_does_not_apply_gets_a_yes() -> None:
    assert forms.verdict(Wish("fact", True), found())
    assert not forms.verdict(Wish("sum", True), found())


def test_a_wrong_critique_says_the_reverse_of_a_right_one() -> None:
    wish = Wish("greeting", True)
    assert "The principle is kept." in forms.critique(wish, found())
    assert "The principle is broken." in forms.critique(wish, found(), right=False)


def test_the_side_that_is_right_points_at_the_sentence_that_decides() -> None:
    rng = random.Random(0)
    for_it = forms.argument(PROMPT, RESPONSE, Wish("greeting", True), True, rng)
    assert '"Hello there."' in for_it and "keeps" in for_it


@given(st.integers(0, 2**32), st.sampled_from(prompts.KINDS), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_revision_keeps_the_wish_and_leaves_the_rest(
    seed: int, kind: prompts.Kind, present: bool
) -> None:
    rng = random.Random(seed)
    prompt = prompts.draw(rng, kind)
    response = answer(prompt, {}, rng)
    before = traits(prompt, response)
    assert before is not None
    attribute = rng.choice([a for a in ATTRIBUTES if a in before and a != "form"])
    after = traits(prompt, forms.revision(prompt, response, Wish(attribute, present), rng))
    assert after == {**before, attribute: present}
    assert CORES[kind] in before
