"""Is the student better now? How often a judge prefers its answers to those of its former self.

Every comparison is made under each principle, and in both orders where the judge sees two answers
at once; a win is a positive sum of weighted log-odds. Vetoes are left aside: a comparison does not
say whether an answer breaks one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaif.constitution import Constitution
from rlaif.intervals import bootstrap
from rlaif.label.method import Mode
from rlaif.label.scores import score_record
from rlaif.records import Record, fingerprint

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WinRate:
    """A win rate and what it rests on.

    Attributes:
        win_rate: share of decided comparisons that the trained student wins, 0 to 1; equal texts
            and exact ties count one half. NaN where nothing was decided.
        low, high: its 95 % bootstrap interval, over prompts.
        length_controlled: the win rate had both answered at the same length.
        comparisons: how many were made.
        undecided: how many of them the judge abstained from; they are in no rate.
        flip_rate: share of the principles' verdicts that turn round when the order is swapped; NaN
            where the judge looked at each answer alone.
        mean_tokens_base, mean_tokens_trained: length of the answers, in tokens.
    """

    win_rate: float
    low: float
    high: float
    length_controlled: float
    comparisons: int
    undecided: int
    flip_rate: float
    mean_tokens_base: float
    mean_tokens_trained: float


def side_by_side(base: Sequence[Record], trained: Sequence[Record]) -> list[Record]:
    """One record for each pair of answers to a prompt: (base, trained), the i-th with the i-th.

    A prompt that only one of the two answered is left out. The prompt's id is kept in `meta`.
    """
    of_trained = {record.id: record for record in trained}
    pairs = []
    for record in base:
        other = of_trained.get(record.id)
        answers = () if other is None else zip(record.responses, other.responses, strict=False)
        for i, responses in enumerate(answers):
            id_ = fingerprint([record.id, i])
            pairs.append(Record(id_, record.prompt, responses, meta={"prompt": record.id}))
    return pairs


def win_rate(
    records: Sequence[Record],
    constitution: Constitution,
    *,
    mode: Mode = "pairwise",
    clip: float,
    min_decided: float,
    resamples: int = 2000,
    seed: int = 0,
) -> WinRate:
    """The win rate of the second response of each record over its first.

    Args:
        records: from `side_by_side`, with verdicts of the mode.
        constitution: whose weights apply.
        mode: how the judge was asked.
        clip: probabilities are kept this far from 0 and 1.
        min_decided: least share of the principles' weight that a comparison needs verdicts for.
        resamples: bootstrap resamples behind the interval.
        seed: of the bootstrap.
    """
    wins, lengths, prompts = [], [], []
    for record in records:
        win = _win(record, constitution, mode, clip, min_decided)
        if win is not None:
            wins.append(win)
            lengths.append(record.responses[1].tokens - record.responses[0].tokens)
            prompts.append(record.meta["prompt"])
    outcome, length = np.array(wins, float), np.array(lengths, float)
    low, high = bootstrap(lambda rows: _mean(outcome[rows]), prompts, resamples, seed)
    return WinRate(
        win_rate=_mean(outcome),
        low=low,
        high=high,
        length_controlled=length_controlled(outcome, length),
        comparisons=len(records),
        undecided=len(records) - len(wins),
        flip_rate=flip_rate(records),
        mean_tokens_base=_mean(np.array([r.responses[0].tokens for r in records], float)),
        mean_tokens_trained=_mean(np.array([r.responses[1].tokens for r in records], float)),
    )


def length_controlled(outcome: Floats, length: Floats) -> float:
    """The win rate at equal length, after Dubois et al. 2024 (arXiv 2404.04475).

    A logistic regression of the outcome on tanh(length difference / its spread), read off at a
    difference of zero. A weak ridge (as if half a win and half a loss were added) keeps it finite
    where one side always wins.

    Args:
        outcome: 0, ½ or 1 for each comparison, shape (n,).
        length: tokens of the second answer minus those of the first, shape (n,).
    """
    if not len(outcome):
        return math.nan
    spread = length.std() or 1.0
    features = np.stack([np.ones_like(length), np.tanh(length / spread)], axis=1)
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method; the loss is convex
        p = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (p - outcome) + weights / 4
        hessian = (features * (p * (1 - p))[:, None]).T @ features + np.eye(2) / 4
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return float(1 / (1 + np.exp(-weights[0])))


def flip_rate(records: Sequence[Record]) -> float:
    """Share of decided pairwise verdicts whose winner changes with the order; NaN without any."""
    flips = [
        abs(v.order_gap or 0.0) > 2 * abs(v.log_odds)
        for record in records
        for v in record.verdicts
        if v.other is not None and v.log_odds is not None
    ]
    return float(np.mean(flips)) if flips else math.nan


def _win(
    record: Record, constitution: Constitution, mode: Mode, clip: float, min_decided: float
) -> float | None:
    """1, ½ or 0 for the second response; None where the judge decided too little."""
    first, second = (" ".join(r.text.split()) for r in record.responses)
    if first == second:
        return 0.5
    scores = score_record(record, constitution, mode=mode, clip=clip, min_decided=min_decided)
    margin = scores.margins[1, 0].weighted
    return None if margin is None else 0.5 * (1 + float(np.sign(margin)))


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan
