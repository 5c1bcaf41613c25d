"""How good a judge is, before its labels are paid for: every figure from labelled comparisons.

    comparisons → judge → Judged → Scorecard → gate

Confidence is measured as it will be used: a comparison's calibrated confidence comes from a curve
that was fitted on other prompts. The curve that is kept is then fitted on all of them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlaif.constitution import Constitution
from rlaif.engines.protocol import Engine, Usage
from rlaif.evaluate.comparisons import Comparison, Judged, about_whole, judge_comparisons
from rlaif.intervals import Rate, bootstrap, rate
from rlaif.label.calibrate import (
    LEAST_ROWS,
    Calibration,
    Way,
    calibration_error,
    fit,
    out_of_fold,
    reliability,
)
from rlaif.label.method import Method
from rlaif.records import fingerprint, sigmoid

BINS = 10


@dataclass(frozen=True, slots=True)
class Confidence:
    """How well confidence fits what is right.

    Attributes:
        error: expected calibration error over ten bins of equal mass, 0 to 1; NaN without labels.
        low, high: its 95 % bootstrap interval, over prompts.
        bins: (mean confidence, share right, rows): the reliability diagram.
    """

    error: float
    low: float
    high: float
    bins: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True, slots=True)
class Length:
    """Whether length decides, over labelled comparisons of different lengths.

    Attributes:
        labels: how often the label is the longer response.
        gold: how often it should be.
    """

    labels: Rate
    gold: Rate


@dataclass(frozen=True, slots=True)
class Cost:
    """What the labels took. Tokens are those that the engine ran, without what its cache held.

    Attributes:
        money: by the prices that were given; None without prices.
    """

    labels: int
    requests: int
    prompt_tokens: int
    generated_tokens: int
    seconds: float
    money: float | None = None


@dataclass(frozen=True, slots=True)
class Scorecard:
    """A judge, measured on comparisons whose better response is known.

    Attributes:
        judge: the engine's identity, and how it was asked.
        mode, reasoning: the form of the question.
        data: fingerprint of the comparisons.
        comparisons: how many were asked about.
        abstained: those without a margin, by reason.
        tied: those with a margin of exactly 0: no label comes out of them either.
        accuracy: of the labels; where gold has a tie, a label is wrong.
        by_principle, by_subset: the same; a comparison about the whole constitution counts
            under each principle by that principle's own gap.
        flip_rate: pairwise: share of comparisons whose label turns round with the order.
        first_both, second_both: pairwise: share where the response shown first (second) won in
            both orders; the two make up the flips.
        raw, calibrated: confidence σ(|margin|), and by a curve fitted on other prompts.
        length: whether length decides.
        coverage: mean mass that the label words had, and the least.
        histogram: of the probabilities that the judge gave, in ten bins from 0 to 1.
        cost: what it took.
    """

    judge: Mapping[str, str]
    mode: str
    reasoning: bool
    data: str
    comparisons: int
    abstained: Mapping[str, int]
    tied: int
    accuracy: Rate
    by_principle: Mapping[str, Rate]
    by_subset: Mapping[str, Rate]
    flip_rate: Rate
    first_both: float
    second_both: float
    raw: Confidence
    calibrated: Confidence | None
    length: Length
    coverage: tuple[float, float]
    histogram: tuple[int, ...]
    cost: Cost

    @property
    def abstention_rate(self) -> float:
        """Share of comparisons without a margin."""
        return sum(self.abstained.values()) / self.comparisons if self.comparisons else math.nan


@dataclass(frozen=True, slots=True)
class Prices:
    """Money for a million tokens: of prompts, and of what is generated."""

    prompt: float
    generated: float


def measure(
    comparisons: Sequence[Comparison],
    engine: Engine,
    constitution: Constitution,
    method: Method,
    *,
    clip: float,
    min_decided: float = 1.0,
    way: Way = "platt",
    prices: Prices | None = None,
) -> tuple[Scorecard, list[Judged]]:
    """Put the comparisons to the judge, and count.

    Args:
        comparisons, engine, constitution, method, clip, min_decided: as in `judge_comparisons`.
        way: the curve of the calibrated confidence.
        prices: for the cost in money.

    Raises:
        EngineError: a label word is not a single token of the model.
    """
    before, start = replace(engine.usage), time.perf_counter()
    judged = judge_comparisons(
        comparisons, engine, constitution, method, clip=clip, min_decided=min_decided
    )
    cost = _cost(before, engine.usage, len(judged), time.perf_counter() - start, prices)
    return scorecard(judged, engine.identity, method, cost, way=way), judged


def scorecard(
    judged: Sequence[Judged],
    judge: Mapping[str, str],
    method: Method,
    cost: Cost,
    *,
    way: Way = "platt",
) -> Scorecard:
    """The figures of comparisons that have been judged; asks no model."""
    labels = [j for j in judged if j.margin]
    return Scorecard(
        judge=dict(judge),
        mode=method.mode,
        reasoning=method.reasoning is not None,
        data=data_fingerprint([j.comparison for j in judged]),
        comparisons=len(judged),
        abstained=dict(Counter(j.reason or "" for j in judged if j.margin is None)),
        tied=sum(j.margin == 0 for j in judged),
        accuracy=rate([bool(j.right) for j in labels]),
        by_principle=_by_principle(judged),
        by_subset=_grouped(labels, lambda j: j.comparison.subset),
        **_orders(judged),
        raw=_confidence(labels, [sigmoid(abs(j.margin or 0.0)) for j in labels]),
        calibrated=_calibrated(labels, way),
        length=_length(labels),
        coverage=_coverage(judged),
        histogram=_histogram(judged),
        cost=cost,
    )


def calibration(
    judged: Sequence[Judged],
    judge: str,
    method: Method,
    constitution: Constitution,
    way: Way = "platt",
) -> Calibration:
    """The curves of a judge, fitted on all comparisons: for other data than these.

    The pair's curve is for margins of all principles together, and is fitted on comparisons about
    the whole constitution alone. A principle has a curve of its own where enough comparisons were
    about it.

    Args:
        judged: from `judge_comparisons`.
        judge: `Method.fingerprint`.
        method: how it was asked.
        constitution: whose pairs will be labelled.
        way: of the curves.

    Raises:
        DataError: too few labels about the whole constitution.
    """
    labels = [j for j in judged if j.margin]
    by_principle: dict[str, list[Judged]] = {}
    for j in labels:
        if j.comparison.principle is not None:
            by_principle.setdefault(j.comparison.principle.fingerprint, []).append(j)
    return Calibration(
        judge=judge,
        mode=method.mode,
        data=data_fingerprint([j.comparison for j in judged]),
        pair=_curve([j for j in labels if about_whole(j.comparison, constitution)], way),
        principles={
            key: _curve(rows, way) for key, rows in by_principle.items() if len(rows) >= LEAST_ROWS
        },
    )


def data_fingerprint(comparisons: Sequence[Comparison]) -> str:
    """Names the comparisons, in order."""
    return fingerprint(
        [
            [c.group, c.responses, c.better, c.principle.fingerprint if c.principle else None]
            for c in comparisons
        ]
    )


def _curve(labels: Sequence[Judged], way: Way) -> Any:
    return fit([abs(j.margin or 0.0) for j in labels], [bool(j.right) for j in labels], way)


def _cost(before: Usage, after: Usage, labels: int, seconds: float, prices: Prices | None) -> Cost:
    prompt = after.computed_tokens - before.computed_tokens
    generated = after.generated_tokens - before.generated_tokens
    money = None
    if prices is not None:
        money = (prompt * prices.prompt + generated * prices.generated) / 1e6
    return Cost(labels, after.requests - before.requests, prompt, generated, seconds, money)


def _grouped(labels: Sequence[Judged], key: Callable[[Judged], str]) -> dict[str, Rate]:
    groups: dict[str, list[bool]] = {}
    for j in labels:
        groups.setdefault(key(j), []).append(bool(j.right))
    return {name: rate(groups[name]) for name in sorted(groups)}


def _by_principle(judged: Sequence[Judged]) -> dict[str, Rate]:
    groups: dict[str, list[bool]] = {}
    for j in judged:
        for name, gap in j.by_principle.items():
            if gap:
                groups.setdefault(name, []).append(j.comparison.better == (0 if gap > 0 else 1))
    return {name: rate(groups[name]) for name in sorted(groups)}


def _orders(judged: Sequence[Judged]) -> dict[str, Any]:
    both = [(j.in_order, j.swapped) for j in judged if j.in_order and j.swapped]
    flips = [(one > 0) != (two > 0) for one, two in both]
    # In both orders in favour of what stood first: for the first response, then against it.
    first = [one > 0 > two for one, two in both]
    second = [one < 0 < two for one, two in both]
    mean = (lambda x: sum(x) / len(x)) if both else (lambda x: math.nan)
    return {
        "flip_rate": rate(flips),
        "first_both": mean(first),
        "second_both": mean(second),
    }


def _confidence(labels: Sequence[Judged], confidence: Sequence[float]) -> Confidence:
    p, ok = np.array(confidence, float), np.array([bool(j.right) for j in labels])
    known = ~np.isnan(p)
    p, ok = p[known], ok[known]
    groups = [j.comparison.group for j, k in zip(labels, known, strict=True) if k]
    low, high = bootstrap(lambda rows: calibration_error(p[rows], ok[rows], BINS), groups)
    return Confidence(calibration_error(p, ok, BINS), low, high, tuple(reliability(p, ok, BINS)))


def _calibrated(labels: Sequence[Judged], way: Way) -> Confidence | None:
    """None where too little was labelled to fit a curve on four fifths of it.

    Margins under one principle and under all of them are two kinds of evidence, with a curve each.
    """
    kinds = [[j for j in labels if (j.comparison.principle is None) == w] for w in (True, False)]
    measured = [j for kind in kinds if len(kind) >= LEAST_ROWS * 5 / 4 for j in kind]
    found = [
        out_of_fold(
            [abs(j.margin or 0.0) for j in kind], [bool(j.right) for j in kind],
            [j.comparison.group for j in kind], way,
        )
        for kind in kinds if len(kind) >= LEAST_ROWS * 5 / 4
    ]  # fmt: skip
    confidence = np.concatenate(found) if found else np.array([])
    return None if np.isnan(confidence).all() else _confidence(measured, confidence.tolist())


def _length(labels: Sequence[Judged]) -> Length:
    said, true = list[bool](), list[bool]()
    for j in labels:
        first, second = (len(text) for text in j.comparison.responses)
        if first != second and j.comparison.better is not None:
            longer = 0 if first > second else 1
            said.append(((j.margin or 0.0) > 0) == (longer == 0))
            true.append(j.comparison.better == longer)
    return Length(rate(said), rate(true))


def _coverage(judged: Sequence[Judged]) -> tuple[float, float]:
    found = [j.coverage for j in judged]
    return (sum(found) / len(found), min(found)) if found else (math.nan, math.nan)


def _histogram(judged: Sequence[Judged]) -> tuple[int, ...]:
    said = [sigmoid(x) for j in judged for x in j.said]
    counts, _ = np.histogram(said, BINS, (0.0, 1.0))
    return tuple(int(n) for n in counts)
