"""A debate: two models argue for and against over some rounds, a third one reads it and decides.

    argue.txt → (rebut.txt → …) → transcript → debate.txt → log-odds that the principle is kept

AI safety via debate (Irving et al. 2018, arXiv 1805.00899), with several rounds in which each side
reads what the other has said (Du et al. 2023, arXiv 2305.14325).

Who speaks first must not decide, and neither may a draw of it: in a round both sides write at the
same time, each knowing the rounds before and nothing of this one, so that nobody has the last word.
And the judge reads the whole debate twice, with either side first, and its log-odds are averaged:
a liking for the first or for the last voice adds the same to both sides and is gone. That is one
more call a debate, a short one beside the arguments.

An argument is data. It is put on one line, so that a debater cannot open a line for the other side.
A side with nothing to say, or cut off, is no debate: an abstention with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from rlaif.engines.protocol import Engine, Generation, Sampling
from rlaif.filters.ways import Question, mean
from rlaif.label.ask import Answer, ask
from rlaif.label.method import Method
from rlaif.label.templates import Template, load_template, prompt_text
from rlaif.records import Chat, Message, seed_of

Side = Literal["keeps", "breaks"]
SIDES: tuple[Side, Side] = ("keeps", "breaks")
_VOICES = {"keeps": "For", "breaks": "Against"}
_SHORT = Sampling(max_tokens=128)

_Speech = tuple[str, str | None]
"""An argument, and None; or nothing, and why there is none."""


@dataclass(frozen=True, slots=True)
class Debating:
    """How a debate is held.

    Attributes:
        argue: what opens each side's chat.
        rebut: what shows a side the other's argument of the round before, in the same chat.
        verdict: how the judge is asked about the transcript.
        rounds: arguments of each side.
        sampling: of the arguments; one that reaches `max_tokens` was cut off.
    """

    argue: Template
    rebut: Template
    verdict: Method
    rounds: int = 1
    sampling: Sampling = _SHORT

    @classmethod
    def load(
        cls,
        rounds: int = 1,
        sampling: Sampling = _SHORT,
        min_coverage: float = 0.5,
        templates: Path | None = None,
    ) -> Self:
        """A debate with the package's templates, or those of a folder in their place.

        Raises:
            RecipeError: a template cannot be used.
            ValueError: fewer than one round.
        """
        if rounds < 1:
            raise ValueError(f"a debate of {rounds} rounds")
        verdict = Method("pointwise", load_template("debate", templates), min_coverage)
        argue, rebut = (load_template(name, templates) for name in ("argue", "rebut"))
        return cls(argue, rebut, verdict, rounds, sampling)

    @property
    def calls(self) -> int:
        """Calls a question: both sides' arguments, and two readings."""
        return 2 * self.rounds + 2


def debate(
    questions: Sequence[Question],
    engine: Engine,
    *,
    method: Debating,
    keeps: Engine | None = None,
    breaks: Engine | None = None,
    seed: int = 0,
) -> list[Answer]:
    """The judge's mean log-odds, after a debate, that each response keeps its principle.

    The transcript, For first, is the answer's rationale.

    Args:
        questions: about one response each; see `ways.each_alone` for two.
        engine: the judge.
        method: how the debate is held.
        keeps, breaks: what argues for and against; None: the judge itself.
        seed: the run's; arguments are sampled by it, the question, the side and the round.

    Raises:
        EngineError: yes or no is not a single token of the judge.
        ValueError: a question about two responses.
    """
    if any(q.other is not None for q in questions):
        raise ValueError("a debate is about one response: use ways.each_alone")
    speakers = dict(zip(SIDES, (keeps or engine, breaks or engine), strict=True))
    held = _held(questions, speakers, method, seed)
    silent = {i: reason for i, rounds in enumerate(held) if (reason := _silence(rounds))}
    able = [i for i in range(len(questions)) if i not in silent]
    texts = {i: [transcript(_spoken(held[i]), first) for first in SIDES] for i in able}
    chats = [_reading(questions[i], text, method) for i in able for text in texts[i]]
    read = ask(chats, engine, method.verdict)
    answers = {i: _verdict(texts[i][0], read[2 * k : 2 * k + 2]) for k, i in enumerate(able)} | {
        i: Answer(None, reason=reason) for i, reason in silent.items()
    }
    return [answers[i] for i in range(len(questions))]


def transcript(rounds: Sequence[dict[Side, str]], first: Side = "keeps") -> str:
    """The debate as its judge reads it: a line an argument, one side first in every round."""
    order = SIDES if first == "keeps" else SIDES[::-1]
    return "\n".join(f"{_VOICES[side]}: {said[side]}" for said in rounds for side in order)


def _held(
    questions: Sequence[Question], speakers: dict[Side, Engine], method: Debating, seed: int
) -> list[list[dict[Side, _Speech]]]:
    """The rounds of each debate; one that has come to a silence is not continued."""
    held: list[list[dict[Side, _Speech]]] = [[] for _ in questions]
    for turn in range(method.rounds):
        going = [i for i, rounds in enumerate(held) if _silence(rounds) is None]
        said = {
            side: _speeches([questions[i] for i in going], [held[i] for i in going], side, turn,
                            speakers[side], method, seed)
            for side in SIDES
        }  # fmt: skip
        for place, i in enumerate(going):
            held[i].append({side: said[side][place] for side in SIDES})
    return held


def _speeches(
    questions: Sequence[Question],
    held: Sequence[list[dict[Side, _Speech]]],
    side: Side,
    turn: int,
    engine: Engine,
    method: Debating,
    seed: int,
) -> list[_Speech]:
    """One side's arguments of one round, in one call to its engine."""
    if not questions:
        return []
    chats = [
        _stand(q, _spoken(rounds), side, method) for q, rounds in zip(questions, held, strict=True)
    ]
    seeds = [seed_of(seed, q.id, "debate", side, turn) for q in questions]
    return [_speech(g, side) for g in engine.generate(chats, method.sampling, seeds)]


def _stand(
    question: Question, rounds: Sequence[dict[Side, str]], side: Side, method: Debating
) -> Chat:
    """A debater's chat: the task, and every round so far as its own words and the other's."""
    opening = method.argue.message(
        prompt=prompt_text(question.prompt), response=question.response,
        principle=question.principle, side=side,
    )  # fmt: skip
    other = SIDES[1 - SIDES.index(side)]
    chat = [opening]
    for said in rounds:
        chat.append(Message("assistant", (said[side],)))
        chat.append(method.rebut.message(debate=f"{_VOICES[other]}: {said[other]}", side=side))
    return tuple(chat)


def _speech(generation: Generation, side: Side) -> _Speech:
    if generation.reason is not None or not generation.responses:
        return "", f"no argument that it {side} the principle: {generation.reason or 'no response'}"
    response = generation.responses[0]
    if response.finish == "length":
        return "", f"argument that it {side} the principle cut off"
    words = " ".join(response.text.split())
    return words, None if words else f"empty argument that it {side} the principle"


def _silence(rounds: Sequence[dict[Side, _Speech]]) -> str | None:
    """Why the debate is none: the first thing that was not said."""
    return next((reason for said in rounds for _, reason in said.values() if reason), None)


def _spoken(rounds: Sequence[dict[Side, _Speech]]) -> list[dict[Side, str]]:
    return [{side: text for side, (text, _) in said.items()} for said in rounds]


def _reading(question: Question, text: str, method: Debating) -> Chat:
    return (
        method.verdict.template.message(
            prompt=prompt_text(question.prompt), response=question.response,
            principle=question.principle, debate=text,
        ),
    )  # fmt: skip


def _verdict(text: str, read: Sequence[Answer]) -> Answer:
    """Both readings' mean; where one has no answer there is none, or the order could decide."""
    for answer in read:
        if answer.log_odds is None:
            return Answer(None, answer.coverage, answer.reason, text)
    found = mean(read)
    return Answer(found.log_odds, found.coverage, None, text)
