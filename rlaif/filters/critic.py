"""A second model reviews each label and its response; only what it is sure of is trained on.

    pick → critic → train

The critic judges the responses under the constitution. What it thinks of the label, and how sure
the judge was, make one confidence that the label is right: a curve that was fitted on labelled
comparisons, seen by both models. A label under the least confidence is dropped.

- A pair says that one response is better than another; the evidence is the two margins.
- A pick says that its response is better than the record's others; the evidence is the two leads,
  each the mean of the margins over the others. With two responses that is a pair. With more, it is
  taken for as much as a pair of these margins would be worth; a mean over several others is less
  noisy than one margin, so that this is no promise too much.

The chosen response, of a pair or of a pick, must also keep the critic's checks (principles about
factual errors, claims without support, and format) and the constitution's vetoes as the critic
sees them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Engine
from rlaif.errors import RecipeError
from rlaif.evaluate.comparisons import Comparison, judge_comparisons
from rlaif.filters.checks import ABSTAINED, Fault, first_faults
from rlaif.label.calibrate import Curve, fit
from rlaif.label.judge import judge
from rlaif.label.method import Method
from rlaif.label.rows import Row
from rlaif.label.scores import score_record
from rlaif.records import Chat, Drop, Record, chat_from_json


@dataclass(frozen=True, slots=True)
class Critic:
    """The second model, and what it is asked.

    Attributes:
        engine: the model.
        method: how it compares responses under the constitution.
        check_method: how it is asked about one response: pointwise or rating.
        constitution: the one that the labels were made by.
        checks: what a chosen response must keep besides.
        clip: probabilities are kept this far from 0 and 1.
        min_decided: least share of the principles' weight that a margin needs verdicts for.
        curve: confidence from (judge's margin, critic's margin) in favour of the label, in nats;
            None: nothing has been calibrated, and no label can pass.
    """

    engine: Engine
    method: Method
    check_method: Method
    constitution: Constitution
    checks: Sequence[Principle] = ()
    clip: float = 0.01
    min_decided: float = 1.0
    curve: Curve | None = None


def fit_critic(
    better: Sequence[int | None],
    judge: Sequence[float | None],
    critic: Sequence[float | None],
) -> Curve:
    """The confidence that a label deserves for what the judge and the critic make of it.

    Args:
        better: of each labelled comparison, the index of the better response; None is a tie, and
            a label there is wrong.
        judge, critic: their margins in favour of the first response, in nats. Where the judge has
            no label or the critic no margin, there is no row.

    Raises:
        DataError: too few rows with both.
    """
    rows = [
        ((abs(j), c if j > 0 else -c), gold == (0 if j > 0 else 1))  # in favour of the label
        for gold, j, c in zip(better, judge, critic, strict=True)
        if j and c is not None
    ]
    evidence = np.reshape([e for e, _ in rows], (len(rows), 2))
    return fit(evidence, [ok for _, ok in rows], "platt")


@dataclass(frozen=True, slots=True)
class _Opinion:
    """The critic's margin in favour of a label, in nats, or None and why there is none."""

    margin: float | None
    reason: str = ""


def review_pairs(
    rows: Sequence[Row], critic: Critic, min_confidence: float
) -> tuple[list[Row], list[Drop]]:
    """The pairs that the critic is sure of, with the confidence as their probability.

    Args:
        rows: preference pairs in the columns of `rows.pair_schema`.
        critic: the second model, with its curve.
        min_confidence: least calibrated probability, 0 to 1, that a pair's label is right.

    Returns:
        The pairs that pass, and a drop of stage "critic" for every other one.

    Raises:
        RecipeError: the critic has no curve.
    """
    curve = _calibrated(critic)
    asked = [
        Comparison(chat_from_json(row["prompt"]), (_text(row["chosen"]), _text(row["rejected"])), 0)
        for row in rows
    ]
    reviews = judge_comparisons(
        asked, critic.engine, critic.constitution, critic.method,
        clip=critic.clip, min_decided=critic.min_decided,
    )  # fmt: skip
    opinions = [_Opinion(review.margin, review.reason or "") for review in reviews]
    faults = _faults([(c.prompt, c.responses[0]) for c in asked], critic)
    kept, drops = list[Row](), list[Drop]()
    for row, opinion, fault in zip(rows, opinions, faults, strict=True):
        confidence = _confidence(row["score_margin"], opinion, curve)
        fault = fault or _doubt(opinion, confidence, min_confidence)
        if fault is None:
            probability = {"chosen_probability": confidence, "probability_calibrated": True}
            kept.append(row | probability)
        else:
            which = f"responses {row['chosen_index']} over {row['rejected_index']}"
            drops.append(_drop(row, fault, which))
    return kept, drops


def review_picks(
    rows: Sequence[Row], records: Sequence[Record], critic: Critic, min_confidence: float
) -> tuple[list[Row], list[Drop]]:
    """The picks that the critic is sure of.

    Args:
        rows: picks in the columns of `rows.SFT_SCHEMA`.
        records: those that the picks are from; others are left aside.
        critic: the second model, with its curve.
        min_confidence: least calibrated probability, 0 to 1, that a pick's label is right.

    Returns:
        The picks that pass, and a drop of stage "critic" for every other one.

    Raises:
        RecipeError: the critic has no curve.
    """
    curve = _calibrated(critic)
    opinions = _leads(rows, records, critic)
    faults = _faults([(chat_from_json(r["prompt"]), _text(r["completion"])) for r in rows], critic)
    kept, drops = list[Row](), list[Drop]()
    for row, opinion, fault in zip(rows, opinions, faults, strict=True):
        confidence = _confidence(row["score_margin"], opinion, curve)
        fault = fault or _doubt(opinion, confidence, min_confidence)
        if fault is None:
            kept.append(row)
        else:
            drops.append(_drop(row, fault, f"response {row['response_index']}"))
    return kept, drops


def _calibrated(critic: Critic) -> Curve:
    if critic.curve is None:
        raise RecipeError(
            "a critic's confidence means nothing before it is calibrated", key="critic",
            mend="add a `gate` with labelled comparisons: the critic is calibrated on them",
        )  # fmt: skip
    return critic.curve


def _leads(rows: Sequence[Row], records: Sequence[Record], critic: Critic) -> list[_Opinion]:
    """The critic's mean margin of each picked response over the others of its record."""
    by_id: Mapping[str, Record] = {record.id: record for record in records}
    asked = [by_id[row["record_id"]].with_(verdicts=()) for row in rows]
    judged = judge(asked, critic.engine, critic.constitution.principles, critic.method)
    return [_lead(r, row["response_index"], critic) for r, row in zip(judged, rows, strict=True)]


def _lead(record: Record, index: int, critic: Critic) -> _Opinion:
    scores = score_record(
        record, critic.constitution,
        mode=critic.method.mode, clip=critic.clip, min_decided=critic.min_decided,
    )  # fmt: skip
    margins = [m.log_odds for (i, _), m in scores.margins.items() if i == index]
    decided = [margin for margin in margins if margin is not None]
    if not decided:
        return _Opinion(None, next((v.reason for v in record.verdicts if v.reason), ""))
    return _Opinion(math.fsum(decided) / len(decided))


def _faults(answers: Sequence[tuple[Chat, str]], critic: Critic) -> list[Fault | None]:
    vetoes = [principle for principle in critic.constitution.principles if principle.veto]
    return first_faults(answers, [*critic.checks, *vetoes], critic.engine, critic.check_method)


def _confidence(margin: float, opinion: _Opinion, curve: Curve) -> float | None:
    return None if opinion.margin is None else curve.confidence(margin, opinion.margin)


def _doubt(opinion: _Opinion, confidence: float | None, least: float) -> Fault | None:
    if confidence is None:
        return ABSTAINED, opinion.reason
    if confidence < least:
        return f"critic's confidence under {least}", f"{confidence:.3f}"
    return None


def _drop(row: Row, fault: Fault, which: str) -> Drop:
    reason, detail = fault
    return Drop(row["record_id"], "critic", reason, f"{which}: {detail}")


def _text(messages: Sequence[Mapping[str, str]]) -> str:
    return str(messages[-1]["content"])
