"""Labelled comparisons of the world, as many as are wanted, with no doubt about the label."""

from __future__ import annotations

import json
import random
from pathlib import Path

from rlaif.constitution import Constitution, Principle
from rlaif.evaluate.comparison_files import comparison_row
from rlaif.evaluate.comparisons import Comparison
from rlaif.records import Message
from rlaif.sandbox import principles, prompts
from rlaif.sandbox.answers import CORES, MANNERS, answer
from rlaif.sandbox.lessons import judged_answer
from rlaif.sandbox.measure import gold_rank
from rlaif.sandbox.principles import Wish

GATE_ROWS = 300
GATE_SEED = 5  # prompts that are drawn for nothing else


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


def constitution_comparisons(
    n: int, constitution: Constitution, seed: int = 0, split: prompts.Split = "evaluate"
) -> list[Comparison]:
    """`n` comparisons under a whole constitution: of two drawn answers, gold ranks one higher.

    The answers are like those of a model that breaks each principle about half of the time. Those
    that gold has on a level are left out.
    """
    rng = random.Random(f"constitution comparisons {seed}")
    made = list[Comparison]()
    for prompt in prompts.prompts(2 * n, split, seed):
        one, two = judged_answer(prompt, rng), judged_answer(prompt, rng)
        ranks = [gold_rank(prompt, text, constitution) for text in (one, two)]
        if ranks[0] != ranks[1] and len(made) < n:
            better = 0 if ranks[0] > ranks[1] else 1
            kind = prompts.parse(prompt)
            assert kind is not None
            made.append(Comparison((Message("user", prompt),), (one, two), better, None, kind.kind))
    return made


def write_gate(file: Path, constitution: Constitution, count: int = GATE_ROWS) -> None:
    """The comparisons that a gate asks about, as a file; by default the quickstart's."""
    rows = constitution_comparisons(count, constitution, GATE_SEED)
    text = "".join(json.dumps(comparison_row(c)) + "\n" for c in rows)
    file.write_text(text, encoding="utf-8", newline="\n")
