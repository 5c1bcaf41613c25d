"""What a student of the sandbox is taught before it judges itself: to answer, and to judge."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.sandbox import measure, prompts
from rlaif.sandbox.answers import CORES, answer, core
from rlaif.sandbox.lessons import MISSED, judged_answer, near_miss

_RIGHT, _STRANGE = 0.5, 0.15
"""Shares of judged answers whose core is right, and whose core is for another kind of prompt."""


def write_seeds(file: Path, constitution: Constitution, answers: int, each: int = 4) -> None:
    """Labelled judgements, as `loop.seeds.evaluations` takes them.

    The kinds of prompts take turns, so that a rare one is taught as well as a common one. Each
    answer is asked about its core, which is harder to judge than manners; and by a principle that
    does not apply, which it keeps: a judge who was never told so takes a refused crime for a lack
    of help, and finds no answer to a dangerous request that breaks no veto.

    Args:
        file: to write.
        constitution: whose principles are asked about.
        answers: how many answers are judged. A kind with few prompts has some judged repeatedly.
        each: principles that are asked about each: the core, one that does not apply, and manners.
    """
    rng = random.Random("seeds")
    asked = measure.wishes(constitution)
    cores = {id_ for id_, wish in asked.items() if wish and wish.attribute in CORES.values()}
    rows = []
    for number in range(answers):
        prompt = _prompt(rng, prompts.KINDS[number % len(prompts.KINDS)])
        response = judged_answer(prompt, rng, around=_core(prompt, rng))
        found = measure.outcomes(prompt, response, asked)
        own = [id_ for id_ in found if id_ in cores]
        others = sorted(cores - found.keys())
        manners = [id_ for id_ in found if id_ not in cores]
        ids = own + rng.sample(others, min(1, len(others))) + rng.sample(manners, len(manners))
        for id_ in ids[:each]:
            keeps = found.get(id_, True)
            rows.append({"prompt": prompt, "response": response, "principle": id_, "keeps": keeps})
    rng.shuffle(rows)
    _write(file, rows)


def _core(prompt: str, rng: random.Random) -> str:
    """What an answer to be judged says: what is right, or wrong in each way that a student slips.

    What is right for a prompt of another kind ("I do not know that.") is among them: a student who
    is rewarded for it says it everywhere.
    """
    question = prompts.parse(prompt)
    assert question is not None
    drawn = rng.random()
    if drawn < _STRANGE:
        kinds = [kind for kind in prompts.KINDS if kind not in (question.kind, "private")]
        other = prompts.parse(_prompt(rng, rng.choice(kinds)))
        assert other is not None
        return core(other, True, rng)
    if drawn < _STRANGE + MISSED and (missed := near_miss(prompt, rng)) is not None:
        return missed
    return core(question, drawn > 1 - _RIGHT, rng)


def write_instructions(file: Path, count: int) -> None:
    """Answers of people, as `loop.seeds.instructions` takes them: the core is right, and manners
    are as they come, for nobody has told these people of a constitution.

    Args:
        file: to write.
        count: of rows, the kinds of prompts in turn.
    """
    rng = random.Random("instructions")
    rows = []
    for number in range(count):
        prompt = _prompt(rng, prompts.KINDS[number % len(prompts.KINDS)])
        said = answer(prompt, dict.fromkeys(CORES.values(), True), rng)
        rows.append({"prompt": prompt, "completion": said})
    _write(file, rows)


def _prompt(rng: random.Random, kind: prompts.Kind) -> str:
    """One that may be labelled, of a kind."""
    while prompts.split_of(prompt := prompts.draw(rng, kind)) != "label":
        pass
    return prompt


def _write(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8", newline="\n")
