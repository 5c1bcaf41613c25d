"""A vote: the same question several times, and the mean of what was said.

With reasons, each is sampled: self-consistency (Wang et al. 2022, arXiv 2203.11171), with log-odds
averaged in the place of verdicts counted, so that a sure voice weighs more than a doubtful one.
Without reasons the question is put again as it is, which pays only for a judge that does not say
the same twice (a server whose batches differ, several models behind one name); a vote of a
deterministic one costs k calls and says what one would.

It is what a debate has to beat at the same number of calls (Choi et al. 2025, arXiv 2508.17536).
"""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.engines.protocol import Engine
from rlaif.filters.ways import Question, chat, mean
from rlaif.label.ask import Answer, ask
from rlaif.label.method import Method
from rlaif.records import seed_of


def vote(
    questions: Sequence[Question],
    engine: Engine,
    *,
    method: Method,
    times: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Answer]:
    """The mean log-odds of `times` answers to each question.

    An abstention among them is left out; if all abstain, so does the vote.

    Args:
        questions, engine: as of every way.
        method: how each voice is asked.
        times: voices a question, 1 or more.
        temperature: of the reasons, where the method asks for them.
        seed: the run's.

    Raises:
        EngineError: a label word is not a single token of the model.
        ValueError: fewer than one voice; or the method does not fit the number of responses.
    """
    if times < 1:
        raise ValueError(f"a vote of {times}")
    chats = [one for q in questions for one in [chat(q, method)] * times]
    seeds = [seed_of(seed, q.id, "vote", voice) for q in questions for voice in range(times)]
    voices = ask(chats, engine, method, temperature=temperature, seeds=seeds)
    return [mean(voices[i : i + times]) for i in range(0, len(voices), times)]
