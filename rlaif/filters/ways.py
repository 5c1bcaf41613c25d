"""Ways to ask: a question in, an answer out, whatever a judge is put through in between.

    question → once, both orders, vote.py, debate.py, escalate.py → answer

A `Way` takes questions and an engine and gives an `Answer` each: log-odds, or the reason for having
none. So a call, a vote and a debate can stand in each other's place, and spent.py can say what each
one costs. Settings are bound with `functools.partial`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rlaif.engines.protocol import Engine
from rlaif.label.ask import Answer, ask
from rlaif.label.method import Method
from rlaif.records import Chat, fingerprint


@dataclass(frozen=True, slots=True)
class Question:
    """Does a response keep a principle; or, where there is another one, does it do so better?

    Attributes:
        prompt: what the responses answer.
        response: the text that log-odds above 0 speak for.
        principle: the principle's text.
        other: the text that they speak against; None asks about `response` alone.
    """

    prompt: Chat
    response: str
    principle: str
    other: str | None = None

    @property
    def id(self) -> str:
        """Names the question; seeds follow from it."""
        prompt = [[m.role, m.text] for m in self.prompt]
        return fingerprint([prompt, self.response, self.other, self.principle])

    @property
    def swapped(self) -> Question:
        """The same comparison, asked the other way round.

        Raises:
            ValueError: there is no other response.
        """
        if self.other is None:
            raise ValueError("a question about one response cannot be swapped")
        return replace(self, response=self.other, other=self.response)

    @property
    def each(self) -> tuple[Question, Question]:
        """What is asked of each of the two responses alone.

        Raises:
            ValueError: there is no other response.
        """
        return replace(self, other=None), replace(self.swapped, other=None)


class Way(Protocol):
    """A way to have questions answered."""

    def __call__(self, questions: Sequence[Question], engine: Engine, /) -> list[Answer]:
        """An answer to each question, in order.

        Log-odds above 0 say that the response keeps the principle, or is the better one.
        """
        ...


def once(questions: Sequence[Question], engine: Engine, *, method: Method) -> list[Answer]:
    """One call a question; of two responses, the first is shown as A.

    Raises:
        EngineError: a label word is not a single token of the model.
        ValueError: the method compares two responses and there is one, or the reverse.
    """
    return ask([chat(q, method) for q in questions], engine, method)


def chat(question: Question, method: Method) -> Chat:
    """What the judge is shown.

    Raises:
        ValueError: the method compares two responses and there is one, or the reverse.
    """
    q = question
    return method.question(q.prompt, q.principle, q.response, q.other)


def both_orders(questions: Sequence[Question], engine: Engine, *, way: Way) -> list[Answer]:
    """Comparisons by a way that is put both orders to: half the difference, free of the place.

    As judge.py does it: if one order has no answer, there is none.
    """
    asked = [one for q in questions for one in (q, q.swapped)]
    return [difference(*two, 0.5) for two in _in_twos(way(asked, engine))]


def each_alone(questions: Sequence[Question], engine: Engine, *, way: Way) -> list[Answer]:
    """Comparisons by a way that looks at one response: logit p - logit q, as in scores.py."""
    asked = [one for q in questions for one in q.each]
    return [difference(*two, 1.0) for two in _in_twos(way(asked, engine))]


def difference(one: Answer, two: Answer, scale: float) -> Answer:
    """What two answers say against each other: `scale` · (one - two), or an abstention."""
    rationale = "\n\n".join(a.rationale for a in (one, two) if a.rationale) or None
    coverage = min(one.coverage, two.coverage)
    if one.log_odds is None or two.log_odds is None:
        return Answer(None, coverage, one.reason or two.reason, rationale)
    return Answer(scale * (one.log_odds - two.log_odds), coverage, None, rationale)


def _in_twos(answers: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    return list(zip(answers[::2], answers[1::2], strict=True))


def mean(answers: Sequence[Answer]) -> Answer:
    """The mean log-odds of the answers that have any; if none has, an abstention.

    An abstention is left out, never counted as 0. The coverage is the least of those counted, the
    rationales follow one another.
    """
    heard = [a for a in answers if a.log_odds is not None]
    counted = heard or answers
    coverage = min((a.coverage for a in counted), default=0.0)
    rationale = "\n\n".join(a.rationale for a in counted if a.rationale) or None
    if not heard:
        reason = next((a.reason for a in answers if a.reason), "nothing was asked")
        return Answer(None, coverage, reason, rationale)
    log_odds = sum(a.log_odds for a in heard if a.log_odds is not None) / len(heard)
    return Answer(log_odds, coverage, None, rationale)
