"""A second model reviews each label and its response; only what it is sure of is trained on.

    pick → critic → train

For a pair, the critic judges both responses under the constitution. What it thinks of the label,
and how sure the judge was, make one confidence that the label is right: a curve that was fitted on
labelled comparisons, seen by both models. A pair under the least confidence is dropped.

The chosen response of a pair, and that of a pick, must also keep the critic's checks: principles
about factual errors, claims without support, and format. One that the critic says is broken, or
cannot decide on, drops the label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Engine
from rlaif.errors import RecipeError
from rlaif.evaluate.comparisons import Comparison, Judged, judge_comparisons
from rlaif.label.calibrate import Curve, fit
from rlaif.label.judge import judge_each
from rlaif.label.method import Method
from rlaif.label.rows import Row
from rlaif.records import Chat, Drop, Record, Response, chat_from_json


@dataclass(frozen=True, slots=True)
class Critic:
    """The second model, and what it is asked.

    Attributes:
        engine: the model.
        method: how it compares two responses under the constitution.
        check_method: how it is asked about one response: pointwise or rating.
        constitution: the one that the labels were made by.
        checks: what a chosen response must keep besides.
        clip: probabilities are kept this far from 0 and 1.
        curve: confidence from (judge's margin, critic's margin) in favour of the label, in nats;
            None: nothing has been calibrated, and no pair can pass.
    """

    engine: Engine
    method: Method
    check_method: Method
    constitution: Constitution
    checks: Sequence[Principle] = ()
    clip: float = 0.01
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
        (_evidence(j, c), gold == (0 if j > 0 else 1))
        for gold, j, c in zip(better, judge, critic, strict=True)
        if j and c is not None
    ]
    evidence = np.reshape([e for e, _ in rows], (len(rows), 2))
    return fit(evidence, [ok for _, ok in rows], "platt")


def _evidence(judge: float, critic: float) -> tuple[float, float]:
    """Both margins in favour of the label, which is the judge's."""
    return abs(judge), critic if judge > 0 else -critic


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
    if critic.curve is None:
        raise RecipeError(
            "a critic's confidence means nothing before it is calibrated", key="critic",
            mend="add a `gate` with labelled comparisons: the critic is calibrated on them",
        )  # fmt: skip
    prompts = [chat_from_json(row["prompt"]) for row in rows]
    reviews = judge_comparisons(
        [
            Comparison(prompt, (_text(row["chosen"]), _text(row["rejected"])), 0)
            for row, prompt in zip(rows, prompts, strict=True)
        ],
        critic.engine, critic.constitution, critic.method, clip=critic.clip,
    )  # fmt: skip
    broken = _broken([(p, _text(r["chosen"])) for r, p in zip(rows, prompts, strict=True)], critic)
    kept, drops = list[Row](), list[Drop]()
    for row, review, fault in zip(rows, reviews, broken, strict=True):
        found = _confidence(row, review, critic.curve)
        fault = fault or _doubt(review, found, min_confidence)
        if fault is None:
            probability = {"chosen_probability": found, "probability_calibrated": True}
            kept.append(row | probability)
        else:
            which = f"responses {row['chosen_index']} over {row['rejected_index']}"
            drops.append(_drop(row, fault, which))
    return kept, drops


def review_picks(rows: Sequence[Row], critic: Critic) -> tuple[list[Row], list[Drop]]:
    """The picks that keep the critic's checks, and the constitution's vetoes as it sees them.

    A pick says that its response is good, not that it is better than one other: there is no label
    of a pair to be sure of.
    """
    answers = [(chat_from_json(row["prompt"]), _text(row["completion"])) for row in rows]
    kept, drops = list[Row](), list[Drop]()
    for row, fault in zip(rows, _broken(answers, critic, vetoes=True), strict=True):
        if fault is None:
            kept.append(row)
        else:
            drops.append(_drop(row, fault, f"response {row['response_index']}"))
    return kept, drops


_Fault = tuple[str, str]
"""Why a label is dropped, in words that many share, and the detail."""


def _drop(row: Row, fault: _Fault, which: str) -> Drop:
    reason, detail = fault
    return Drop(row["record_id"], "critic", reason, f"{which}: {detail}")


def _confidence(row: Row, review: Judged, curve: Curve) -> float | None:
    if review.margin is None:
        return None
    return curve.confidence(*_evidence(row["score_margin"], review.margin))


def _doubt(review: Judged, confidence: float | None, least: float) -> _Fault | None:
    if confidence is None:
        return "critic abstained", review.reason or ""
    if confidence < least:
        return f"critic's confidence under {least}", f"{confidence:.3f}"
    return None


def _broken(
    answers: Sequence[tuple[Chat, str]], critic: Critic, *, vetoes: bool = False
) -> list[_Fault | None]:
    """For each answer, the first check that it does not surely keep."""
    checks = [*critic.checks]
    if vetoes:
        checks += [p for p in critic.constitution.principles if p.veto]
    if not checks:
        return [None] * len(answers)
    records = [
        Record(str(i), prompt, (Response(text, len(text.split()), "stop"),))
        for i, (prompt, text) in enumerate(answers)
    ]
    judged = judge_each([(r, checks) for r in records], critic.engine, critic.check_method)
    names = {check.fingerprint: check.id for check in checks}
    return [_first_fault(record, names) for record in judged]


def _first_fault(record: Record, names: Mapping[str, str]) -> _Fault | None:
    for verdict in record.verdicts:
        name = names[verdict.principle]
        if verdict.log_odds is None:
            return "critic abstained", f"{name}: {verdict.reason}"
        if verdict.log_odds <= 0:
            return f"critic: breaks {name}", f"log-odds {verdict.log_odds:.2f}"
    return None


def _text(messages: Sequence[Mapping[str, str]]) -> str:
    return messages[-1]["content"]
