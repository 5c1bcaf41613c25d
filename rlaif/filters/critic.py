"""A second model reviews each label and its response; only what it is sure of is trained on.

    pick → critic → train

The critic judges the responses under the constitution. What it thinks of the label, and how sure
the judge was, make one confidence that the label is right: a curve that was fitted on labelled
comparisons, seen by both models. A label under the least confidence is dropped.

- A pair says that one response is better than another; the evidence is the two models' margins.
- A pick says that its response is better than the record's others. Its confidence is the mean, over
  the others, of the confidence that it is better than that one: the probability that it is better
  than one drawn from them. In the sandbox, the mean of the margins in the curve's place promised
  too much.

A promise counts ties of gold as wrong as far as the comparisons that the curve was fitted on have
them: where they have none, it is a promise that the chosen one is not worse.

The chosen response, of a pair or of a pick, must also keep the critic's checks (principles about
factual errors, claims without support, and format) and the constitution's vetoes as the critic
sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Engine
from rlaif.errors import RecipeError
from rlaif.evaluate.comparisons import Comparison, judge_comparisons
from rlaif.filters.checks import ABSTAINED, Fault, first_faults
from rlaif.label.calibrate import Curve, fit
from rlaif.label.judge import judge
from rlaif.label.method import Method, Mode
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
        judge_mode: how the judge was asked.
        clip: probabilities are kept this far from 0 and 1, the judge's and the critic's.
        min_decided: least share of the principles' weight that a margin needs verdicts for.
        curve: confidence from (judge's margin, critic's margin) in favour of the label, in nats;
            None: nothing has been calibrated, and no label can pass.
    """

    engine: Engine
    method: Method
    check_method: Method
    constitution: Constitution
    checks: Sequence[Principle] = ()
    judge_mode: Mode = "pointwise"
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
class _Sure:
    """The confidence that a label is right, or None and why the critic has none."""

    confidence: float | None
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
    found = [
        _Sure(_confidence(row["score_margin"], review.margin, curve), review.reason or "")
        for row, review in zip(rows, reviews, strict=True)
    ]
    faults = _faults([(c.prompt, c.responses[0]) for c in asked], critic)
    kept, drops = _sorted(rows, found, faults, min_confidence, _which_pair)
    probable = [{"chosen_probability": sure.confidence, "probability_calibrated": True}
                for sure in kept.values()]  # fmt: skip
    return [rows[i] | p for i, p in zip(kept, probable, strict=True)], drops


def review_picks(
    rows: Sequence[Row], records: Sequence[Record], critic: Critic, min_confidence: float
) -> tuple[list[Row], list[Drop]]:
    """The picks that the critic is sure of.

    Args:
        rows: picks in the columns of `rows.SFT_SCHEMA`.
        records: those that the picks are from, with the judge's verdicts; others are left aside.
        critic: the second model, with its curve.
        min_confidence: least calibrated probability, 0 to 1, that a pick's label is right.

    Returns:
        The picks that pass, and a drop of stage "critic" for every other one.

    Raises:
        RecipeError: the critic has no curve.
    """
    curve = _calibrated(critic)
    found = _over_others(rows, records, critic, curve)
    faults = _faults([(chat_from_json(r["prompt"]), _text(r["completion"])) for r in rows], critic)
    kept, drops = _sorted(rows, found, faults, min_confidence, _which_pick)
    return [rows[i] for i in kept], drops


def _sorted(
    rows: Sequence[Row],
    found: Sequence[_Sure],
    faults: Sequence[Fault | None],
    least: float,
    which: Callable[[Row], str],
) -> tuple[dict[int, _Sure], list[Drop]]:
    """Which rows pass, by their place, and a drop for every other one."""
    kept, drops = dict[int, _Sure](), list[Drop]()
    for i, (row, sure, fault) in enumerate(zip(rows, found, faults, strict=True)):
        fault = fault or _doubt(sure, least)
        if fault is None:
            kept[i] = sure
        else:
            reason, detail = fault
            drops.append(Drop(row["record_id"], "critic", reason, f"{which(row)}: {detail}"))
    return kept, drops


def _which_pair(row: Row) -> str:
    return f"responses {row['chosen_index']} over {row['rejected_index']}"


def _which_pick(row: Row) -> str:
    return f"response {row['response_index']}"


def _calibrated(critic: Critic) -> Curve:
    if critic.curve is None:
        raise RecipeError(
            "a critic's confidence means nothing before it is calibrated", key="critic",
            mend="add a `gate` with labelled comparisons: the critic is calibrated on them",
        )  # fmt: skip
    return critic.curve


def _over_others(
    rows: Sequence[Row], records: Sequence[Record], critic: Critic, curve: Curve
) -> list[_Sure]:
    """How surely each picked response is better than one drawn from the others of its record."""
    by_id = {record.id: record for record in records}
    judged = [by_id[row["record_id"]] for row in rows]
    unread = [record.with_(verdicts=()) for record in judged]
    reviewed = judge(unread, critic.engine, critic.constitution.principles, critic.method)
    return [
        _over_drawn(row["response_index"], before, after, critic, curve)
        for row, before, after in zip(rows, judged, reviewed, strict=True)
    ]


def _over_drawn(
    index: int, judged: Record, reviewed: Record, critic: Critic, curve: Curve
) -> _Sure:
    first = _margins(index, judged, critic.judge_mode, critic)
    second = _margins(index, reviewed, critic.method.mode, critic)
    both = [_confidence(margin, second[j], curve) for j, margin in first.items()]
    decided = [confidence for confidence in both if confidence is not None]
    if not decided:
        return _Sure(None, next((v.reason for v in reviewed.verdicts if v.reason), ""))
    return _Sure(math.fsum(decided) / len(decided))


def _margins(index: int, record: Record, mode: Mode, critic: Critic) -> dict[int, float | None]:
    """The margin of one response over each other, by the other's index."""
    scores = score_record(
        record, critic.constitution, mode=mode, clip=critic.clip, min_decided=critic.min_decided
    )
    return {j: margin.log_odds for (i, j), margin in scores.margins.items() if i == index}


def _faults(answers: Sequence[tuple[Chat, str]], critic: Critic) -> list[Fault | None]:
    vetoes = [principle for principle in critic.constitution.principles if principle.veto]
    return first_faults(answers, [*critic.checks, *vetoes], critic.engine, critic.check_method)


def _confidence(judge: float | None, critic: float | None, curve: Curve) -> float | None:
    """That a response is better than another, from the margins of both models in its favour."""
    if judge is None or critic is None:
        return None
    return curve.confidence(judge, critic) if judge >= 0 else 1 - curve.confidence(-judge, -critic)


def _doubt(sure: _Sure, least: float) -> Fault | None:
    if sure.confidence is None:
        return ABSTAINED, sure.reason
    if sure.confidence < least:
        return f"critic's confidence under {least}", f"{sure.confidence:.3f}"
    return None


def _text(messages: Sequence[Mapping[str, str]]) -> str:
    return str(messages[-1]["content"])
