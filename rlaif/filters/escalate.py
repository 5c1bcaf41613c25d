"""Escalation: the cheap verdict first, and only what it leaves uncertain goes on to the next way.

    questions → step 1 → sure enough? → step 2 → … → the last step

Nothing that was said is thrown away. After each step the evidence is Σ weight·log-odds over all the
answers so far, its sign is the label, and its size is turned into a confidence by that step's own
curve. Weights and curves are fitted on labelled questions of other prompts, which are put through
every step: so any threshold can be set afterwards. It is the sequential test of Wald (1945, Annals
of Mathematical Statistics 16) with calibrated confidence in the place of a likelihood ratio.

A step in which the judge abstains adds nothing to the sum, and the question goes on. Where no step
has an answer there is no label, and the last reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.engines.protocol import Engine
from rlaif.errors import DataError
from rlaif.filters.ways import Question, Way
from rlaif.label.ask import Answer
from rlaif.label.calibrate import LEAST_ROWS, Curve, fit
from rlaif.label.calibrate import Way as Shape
from rlaif.strict_model import Many, StrictModel


@dataclass(frozen=True, slots=True)
class Step:
    """A way to ask, and what people call it."""

    name: str
    way: Way


class Evidence(StrictModel, error=DataError):
    """What the answers up to one step are worth.

    Attributes:
        weights: of the log-odds of each step so far, this one's last.
        curve: from the size of their weighted sum to the confidence in its sign.
    """

    weights: Many[float]
    curve: Curve

    def weigh(self, answers: Sequence[Answer]) -> float | None:
        """The weighted sum, in nats; None where no step has an answer.

        Raises:
            ValueError: the answers of another number of steps.
        """
        return _weigh(self.weights, answers)


def _weigh(weights: Sequence[float], answers: Sequence[Answer]) -> float | None:
    pairs = zip(weights, answers, strict=True)
    terms = [w * a.log_odds for w, a in pairs if a.log_odds is not None]
    return math.fsum(terms) if terms else None


@dataclass(frozen=True, slots=True)
class Escalated:
    """What came of a question.

    Attributes:
        answers: of each step that it was put through, in order.
        evidence: the weighted sum of what they say, in nats; its sign is the label, and at 0
            there is none. None where no step says anything.
        confidence: calibrated, that the label is right; None likewise.
        reason: why there is no evidence; None where there is.
    """

    answers: tuple[Answer, ...]
    evidence: float | None
    confidence: float | None
    reason: str | None = None

    @property
    def answer(self) -> Answer:
        """As one answer, in the place of a single call's: log-odds are those of the confidence.

        Where a label is no more likely right than wrong there is none.
        """
        coverage = min((a.coverage for a in self.answers if a.log_odds is not None), default=0.0)
        if self.evidence is None or self.confidence is None:
            return Answer(None, coverage, self.reason or "nothing was asked")
        if self.evidence == 0 or self.confidence <= 0.5:
            return Answer(None, coverage, f"confidence {self.confidence:.2f} after every step")
        sure = min(self.confidence, 1 - 1e-9)
        return Answer(math.copysign(math.log(sure / (1 - sure)), self.evidence), coverage)


def escalate(
    questions: Sequence[Question],
    engine: Engine,
    *,
    steps: Sequence[Step],
    learned: Sequence[Evidence],
    threshold: float,
) -> list[Escalated]:
    """Each question put to one step after the other until its label is sure enough.

    Args:
        questions: in any order; each is decided by itself.
        engine: the judge of every step.
        steps: the cheapest first.
        learned: what the answers up to each step are worth, from `learn`.
        threshold: the calibrated confidence, 0 to 1, with which a question rests.

    Raises:
        EngineError: a label word is not a single token of the model.
        ValueError: not as many curves as steps.
    """
    found = [Escalated((), None, None, "nothing was asked")] * len(questions)
    uncertain = list(range(len(questions)))
    for step, known in zip(steps, learned, strict=True):
        answers = step.way([questions[i] for i in uncertain], engine)
        for i, answer in zip(uncertain, answers, strict=True):
            found[i] = _decided((*found[i].answers, answer), known)
        uncertain = [i for i in uncertain if not _sure(found[i], threshold)]
        if not uncertain:
            break
    return found


def _decided(answers: tuple[Answer, ...], known: Evidence) -> Escalated:
    total = known.weigh(answers)
    if total is None:
        return Escalated(answers, None, None, answers[-1].reason)
    return Escalated(answers, total, known.curve.confidence(abs(total)))


def _sure(found: Escalated, threshold: float) -> bool:
    return found.confidence is not None and found.confidence >= threshold


def learn(
    questions: Sequence[Question],
    better: Sequence[bool | None],
    engine: Engine,
    *,
    steps: Sequence[Step],
    shape: Shape = "platt",
) -> list[Evidence]:
    """Put labelled questions through every step, and fit what the answers are worth.

    Args:
        questions: of other prompts than those to be decided.
        better: whether gold has the response as keeping the principle (as the better one); None
            is a tie, which makes any label wrong.
        engine, steps: as in `escalate`.
        shape: of the curves.

    Raises:
        DataError: fewer than `LEAST_ROWS` questions have an answer.
        EngineError: a label word is not a single token of the model.
    """
    said = [step.way(questions, engine) for step in steps]
    return [worth(said[: i + 1], better, shape) for i in range(len(steps))]


def worth(
    said: Sequence[Sequence[Answer]], better: Sequence[bool | None], shape: Shape = "platt"
) -> Evidence:
    """What answers are worth, by labelled questions: said[step][question].

    The weights are those of a logistic regression of the label on the log-odds, without an
    intercept: asked the other way round, a question has the opposite evidence. What a step did not
    decide is left out of its sum, here as in use.

    Raises:
        DataError: fewer than `LEAST_ROWS` questions have an answer.
    """
    answers = list(zip(*said, strict=True))
    rows = [i for i, a in enumerate(answers) if any(x.log_odds is not None for x in a)]
    told = [i for i in rows if better[i] is not None]
    if len(told) < LEAST_ROWS:
        raise DataError(
            "too few labelled questions to calibrate a step on", key="rows", value=len(told),
            mend=f"give at least {LEAST_ROWS} with a decided verdict",
        )  # fmt: skip
    x = np.array([[a.log_odds or 0.0 for a in answers[i]] for i in told])
    y = np.array([bool(better[i]) for i in told])
    # Each row and its mirror image: then there is nothing for an intercept to say.
    weights = fit(np.concatenate([x, -x]), np.concatenate([y, ~y]), "platt").slopes
    totals = [_weigh(weights, answers[i]) or 0.0 for i in rows]
    right = [better[i] == (t > 0) for i, t in zip(rows, totals, strict=True)]  # None is neither
    return Evidence(weights=weights, curve=fit(np.abs(totals), right, shape))


def threshold_within(
    budget: float,
    said: Sequence[Sequence[Answer]],
    learned: Sequence[Evidence],
    costs: Sequence[float],
) -> float:
    """The highest threshold at which a question costs no more than the budget, in the mean.

    A threshold is the share of errors that one bears with, but the same errors cost little with one
    judge and much with another; this asks instead what one is willing to pay.

    Args:
        budget: a question, in the unit of `costs`.
        said: what each step said of labelled questions, said[step][question].
        learned: what was fitted on them.
        costs: of each step, a question.

    Returns:
        From 0.5 to 1; 1 where every step is within the budget for every question.

    Raises:
        DataError: the first step alone costs more; it is put to every question.
    """
    if budget < costs[0]:
        raise DataError(
            "less than the first step costs", key="budget", value=budget,
            mend=f"give at least {costs[0]:g}, or take a cheaper first step",
        )  # fmt: skip
    answers = list(zip(*said, strict=True))
    sure = np.array(
        [
            [
                _decided(row[: i + 1], known).confidence or 0.0
                for i, known in enumerate(learned[:-1])
            ]
            for row in answers
        ]
    ).reshape(len(answers), len(learned) - 1)
    # A question pays for a step if it was sure enough at none before it.
    so_far = np.maximum.accumulate(sure, axis=1)
    for threshold in (1.0, *np.unique(sure)[::-1].tolist()):
        if costs[0] + ((so_far < threshold) @ np.array(costs[1:])).mean() <= budget:
            return float(max(0.5, threshold))
    return 0.5
