"""What a student of the sandbox is taught to judge by: questions to a judge, with right answers."""

from __future__ import annotations

import json
import random
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.sandbox import measure, prompts
from rlaif.sandbox.lessons import judged_answer

_SEED = 13  # prompts that are drawn for nothing else


def write_seeds(file: Path, constitution: Constitution, answers: int, each: int = 6) -> None:
    """Labelled judgements, as `loop.seeds.evaluations` takes them.

    Args:
        file: to write.
        constitution: whose principles are asked about.
        answers: how many answers are judged, each to a prompt of its own.
        each: principles that are asked about each, of those that apply.
    """
    rng = random.Random("seeds")
    asked = measure.wishes(constitution)
    rows = []
    for prompt in prompts.prompts(answers, "label", _SEED):
        response = judged_answer(prompt, rng)
        found = measure.outcomes(prompt, response, asked)
        for id_ in rng.sample(list(found), min(each, len(found))):
            rows.append(
                {"prompt": prompt, "response": response, "principle": id_, "keeps": found[id_]}
            )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8", newline="\n")
