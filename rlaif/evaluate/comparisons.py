"""Labelled comparisons, and what a judge says of them: what a scorecard and a gate stand on.

    a file, or a constitution's examples → Comparison → judge → Judged → scorecard, calibration

comparison_files.py reads them from the formats in which they are to be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Engine
from rlaif.label.judge import judge_each
from rlaif.label.method import Method
from rlaif.label.scores import score_record
from rlaif.records import Chat, Message, Record, Response, Verdict, fingerprint


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two responses to a prompt, and which one is better.

    Attributes:
        prompt: what both answer.
        responses: their texts.
        better: index of the better one; None is a tie.
        principle: the principle it is about; None: the whole constitution.
        subset: what it is counted under in a scorecard.
    """

    prompt: Chat
    responses: tuple[str, str]
    better: int | None
    principle: Principle | None = None
    subset: str = "all"

    @property
    def group(self) -> str:
        """Names the prompt: comparisons on one prompt are not independent."""
        return fingerprint([[m.role, m.text] for m in self.prompt])

    @property
    def swapped(self) -> Comparison:
        """The same comparison with the responses in the other order."""
        better = None if self.better is None else 1 - self.better
        return replace(self, responses=self.responses[::-1], better=better)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge says of a comparison, in nats in favour of its first response.

    Attributes:
        comparison: what was judged.
        margin: all principles and both orders together; None: undecided.
        in_order: pairwise: from the first order alone, its first response shown as A; else None.
        swapped: pairwise: from the other order alone, also in favour of the first; else None.
        by_principle: the unweighted gap under each principle that was decided for both, by id.
        said: the log-odds of every answer as the judge gave it: of keeping a principle, or of the
            response shown as A.
        coverage: the least mass that the label words had.
        reason: why it is undecided; None where it is not.
    """

    comparison: Comparison
    margin: float | None
    in_order: float | None
    swapped: float | None
    by_principle: Mapping[str, float]
    said: tuple[float, ...]
    coverage: float
    reason: str | None = None

    @property
    def right(self) -> bool | None:
        """Whether gold confirms the label; a gold tie does not. None where there is no label."""
        if not self.margin:
            return None
        return self.comparison.better == (0 if self.margin > 0 else 1)


def about_whole(comparison: Comparison, constitution: Constitution) -> bool:
    """Whether its margin is of the kind that labels are made of: of all principles together.

    A margin under one of several principles is another kind of evidence, with another worth.
    """
    return comparison.principle is None or constitution.principles == (comparison.principle,)


def judge_comparisons(
    comparisons: Sequence[Comparison],
    engine: Engine,
    constitution: Constitution,
    method: Method,
    *,
    clip: float,
    min_decided: float = 1.0,
) -> list[Judged]:
    """The judge's margin on each comparison, in one call to the engine.

    Args:
        comparisons: those about a principle are judged under it alone.
        engine: the judge.
        constitution: for the comparisons that are about none.
        method: how it is asked.
        clip: probabilities are kept this far from 0 and 1.
        min_decided: least share of the principles' weight that a margin needs verdicts for.

    Raises:
        EngineError: a label word is not a single token of the model.
    """
    asked = [(_record(c), _constitution(c, constitution)) for c in comparisons]
    records = judge_each([(r, c.principles) for r, c in asked], engine, method)
    return [
        _judged(comparison, record, under, method, clip, min_decided)
        for comparison, record, (_, under) in zip(comparisons, records, asked, strict=True)
    ]


def _record(comparison: Comparison) -> Record:
    # Length in words decides nothing here: a tokenizer is not at hand.
    responses = tuple(Response(t, len(t.split()), "stop") for t in comparison.responses)
    return Record(comparison.group, comparison.prompt, responses)


def _constitution(comparison: Comparison, constitution: Constitution) -> Constitution:
    """A lone principle weighs 1 and vetoes nothing: its gap is the margin."""
    if comparison.principle is None:
        return constitution
    alone = comparison.principle.model_copy(update={"weight": 1.0, "veto": False})
    return Constitution(name=alone.id, principles=(alone,))


def _judged(
    comparison: Comparison,
    record: Record,
    constitution: Constitution,
    method: Method,
    clip: float,
    min_decided: float,
) -> Judged:
    coverage = min((v.coverage for v in record.verdicts), default=0.0)

    def margin(of: Record) -> tuple[float | None, Mapping[str, float]]:
        scores = score_record(
            of, constitution, mode=method.mode, clip=clip, min_decided=min_decided
        )
        if (0, 1) not in scores.margins:  # equal texts
            return None, {}
        found = scores.margins[0, 1]
        return found.log_odds, found.by_principle

    both, by_principle = margin(record)
    one = two = None
    if method.mode == "pairwise":
        one, two = (margin(_one_order(record, sign))[0] for sign in (1, -1))
    said = tuple(x for v in record.verdicts for x in _said(v))
    reasons = [v.reason for v in record.verdicts if v.reason is not None]
    reason = None if both is not None else reasons[0] if reasons else "equal texts"
    return Judged(comparison, both, one, two, by_principle, said, coverage, reason)


def _said(verdict: Verdict) -> tuple[float, ...]:
    """The answers behind a verdict: one, or that to each order."""
    over, gap = verdict.log_odds, verdict.order_gap
    if over is None:
        return ()
    return (over,) if gap is None else (gap / 2 + over, gap / 2 - over)


def _one_order(record: Record, sign: int) -> Record:
    """The record as if the judge had seen one order alone: the first (+1) or the other (-1)."""
    verdicts = tuple(
        replace(v, log_odds=v.log_odds + sign * v.order_gap / 2)
        if v.log_odds is not None and v.order_gap is not None
        else v
        for v in record.verdicts
    )
    return record.with_(verdicts=verdicts)


def examples(constitution: Constitution) -> list[Comparison]:
    """A constitution's own examples, every other one with the better response second."""
    found = [
        Comparison(
            (Message("user", example.prompt),), (example.better, example.worse), 0,
            principle, principle.id,
        )
        for principle in constitution.principles
        for example in principle.examples
    ]  # fmt: skip
    return [c.swapped if i % 2 else c for i, c in enumerate(found)]
