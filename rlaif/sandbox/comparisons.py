"""Labelled comparisons of the world, as many as are wanted, with no doubt about the label."""

from __future__ import annotations

import random

from rlaif.constitution import Principle
from rlaif.evaluate.comparisons import Comparison
from rlaif.records import Message
from rlaif.sandbox import principles, prompts
from rlaif.sandbox.answers import CORES, MANNERS, answer
from rlaif.sandbox.principles import Wish


def comparisons(n: int, seed: int = 0, split: prompts.Split = "evaluate") -> list[Comparison]:
    """`n` comparisons on one prompt each: two answers, one of which keeps a drawn principle.

    The principle is for or against an attribute that applies to the prompt; its id is the
    attribute's name and its text a drawn wording. All else in the answers is drawn. The better
    one is as often the first as the second.
    """
    rng = random.Random(f"comparisons {seed}")
    made = []
    for prompt in prompts.prompts(n, split, seed):
        question = prompts.parse(prompt)
        assert question is not None
        attribute = rng.choice([CORES[question.kind], *MANNERS])
        wish, first = Wish(attribute, rng.random() < 0.5), rng.random() < 0.5
        one, two = (answer(prompt, {attribute: has}, rng) for has in (first, not first))
        principle = Principle(id=attribute, text=principles.draw(rng, *wish))
        better = 0 if wish.present == first else 1
        chat = (Message("user", prompt),)
        made.append(Comparison(chat, (one, two), better, principle, attribute))
    return made
