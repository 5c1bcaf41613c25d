"""What the verdicts on a record amount to: between judge.py and pick.py.

The unit is log-odds, in nats. Each verdict's are clipped to ±logit(1 - clip), so that one over-sure
verdict cannot drown the rest. A principle's gap between responses i and j is how much i is better:

- pairwise: its log-odds of i over j, as asked;
- pointwise and rating: logit p_i - logit p_j. If i keeps the principle with probability p_i and j,
  independently, with p_j, then of the cases where just one of them does, i is the one with
  probability p_i(1 - p_j) / (p_i(1 - p_j) + p_j(1 - p_i)) = σ(logit p_i - logit p_j). It is the
  model of Bradley and Terry (1952, Biometrika 39) with the odds as the strengths.

A margin is the weighted sum of gaps, over the principles that the judge decided for both, and
σ(margin) is the probability that i is better. An undecided principle is left out of both sides,
never counted as 0, and if too much weight is left out there is no margin.

Vetoes go before weights. A response is vetoed if it breaks a veto principle (log-odds < 0) or if
the judge abstained there; it can then not be chosen. Between one that keeps every veto and one that
breaks some, the margin is the widest gap on a veto broken by the other, unweighted, or the weighted
sum where that is more: the kept one always wins, and as surely as the judge was sure of the breach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

from rlaif.constitution import Constitution, Principle
from rlaif.errors import RecipeError
from rlaif.label.method import Mode
from rlaif.records import Record

Standing = Literal["kept", "broken", "unsure"]


@dataclass(frozen=True, slots=True)
class Margin:
    """How much better one response is than another, in nats.

    Attributes:
        log_odds: vetoes included; None where the judge decided too little.
        weighted: the weighted sum of gaps alone; None likewise.
        by_principle: the gap under each principle decided for both, by the principle's id.
    """

    log_odds: float | None
    weighted: float | None
    by_principle: Mapping[str, float]

    def reversed(self) -> Margin:
        """The same comparison, seen from the other response."""
        return Margin(
            None if self.log_odds is None else -self.log_odds,
            None if self.weighted is None else -self.weighted,
            {name: -gap for name, gap in self.by_principle.items()},
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """What the judge thinks of a record's distinct responses, by their index in the record.

    Attributes:
        responses: one index for each text; texts that differ in white space alone count as one.
        by_principle: pointwise and rating: a response's clipped log-odds under each principle
            that was decided for it, by the principle's id; pairwise: nothing.
        margins: of each response over each other one.
        lead: a response's mean weighted margin over the others (in pairwise mode a Borda count
            in log-odds), vetoes aside; None where it has no margin.
        score: Σ weight·log-odds over `by_principle`; pairwise: the lead. None where nothing was
            decided.
        vetoes: whether a response keeps the veto principles; "kept" where there are none.
    """

    responses: tuple[int, ...]
    by_principle: Mapping[int, Mapping[str, float]]
    margins: Mapping[tuple[int, int], Margin]
    lead: Mapping[int, float | None]
    score: Mapping[int, float | None]
    vetoes: Mapping[int, Standing]


def refuse_pairwise_vetoes(constitution: Constitution, mode: Mode) -> None:
    """Refuse what cannot be decided: a comparison does not say whether either response keeps a
    principle. Worth a call before any model is loaded.

    Raises:
        RecipeError: pairwise mode, and a principle with a veto.
    """
    vetoes = [principle.id for principle in constitution.principles if principle.veto]
    if mode == "pairwise" and vetoes:
        raise RecipeError(
            f"cannot tell whether a response keeps a veto principle ({', '.join(vetoes)})",
            key="judge.mode",
            value=mode,
            mend="use pointwise or rating, or take the veto off",
        )


def score_record(
    record: Record, constitution: Constitution, *, mode: Mode, clip: float, min_decided: float
) -> Scores:
    """The scores and margins of a record's distinct responses.

    Args:
        record: with the verdicts of the mode; a verdict that is not there counts as undecided.
        constitution: whose weights and vetoes apply.
        mode: how the judge was asked.
        clip: probabilities are kept this far from 0 and 1; 0 to 0.5, exclusive.
        min_decided: least share, 0 to 1, of the principles' weight that a margin needs verdicts
            for, on both sides.
    """
    principles, responses = constitution.principles, distinct_responses(record)
    verdicts = _read(record, principles, mode, clip)
    by_principle = {i: verdicts.on(i) for i in responses}
    vetoes = {i: _standing(principles, by_principle[i]) for i in responses}
    halves: dict[tuple[int, int], Margin] = {}
    for i, j in combinations(responses, 2):
        gaps = verdicts.gaps(principles, i, j)
        decided = _share(principles, gaps) >= min_decided
        weighted = _weighted(principles, gaps) if decided else None
        overall = _overall(principles, weighted, *((by_principle[k], vetoes[k]) for k in (i, j)))
        halves[i, j] = Margin(overall, weighted, gaps)
        halves[j, i] = halves[i, j].reversed()
    margins = {pair: halves[pair] for pair in permutations(responses, 2)}
    leads = {i: _lead([margins[i, j] for j in responses if j != i]) for i in responses}
    sums = {i: _weighted(principles, by_principle[i]) for i in responses}
    return Scores(
        responses, by_principle, margins, leads, leads if mode == "pairwise" else sums, vetoes
    )


def distinct_responses(record: Record) -> tuple[int, ...]:
    """An index for each text, of those that are the same but for white space: one that ended by
    itself rather than one that was cut off, then the shorter; their order does not decide.
    """
    best: dict[str, int] = {}
    for i, response in enumerate(record.responses):
        words = " ".join(response.text.split())
        best[words] = min(best.get(words, i), i, key=lambda k: _preference(record, k))
    return tuple(sorted(best.values()))


def _preference(record: Record, index: int) -> tuple[bool, int, str]:
    response = record.responses[index]
    return response.finish == "length", response.tokens, response.text


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """Clipped log-odds by principle id, response and other one; abstentions are not there."""

    log_odds: Mapping[tuple[str, int, int | None], float]
    mode: Mode

    def gaps(self, principles: Sequence[Principle], i: int, j: int) -> dict[str, float]:
        """How much better i is than j under each principle that was decided for both."""
        found = {p.id: self._gap(p.id, i, j) for p in principles}
        return {name: gap for name, gap in found.items() if gap is not None}

    def _gap(self, principle: str, i: int, j: int) -> float | None:
        ask = self.log_odds.get
        if self.mode == "pairwise":
            over, under = ask((principle, i, j)), ask((principle, j, i))
            return over if over is not None else None if under is None else -under
        mine, other = ask((principle, i, None)), ask((principle, j, None))
        return None if mine is None or other is None else mine - other

    def on(self, i: int) -> dict[str, float]:
        """The log-odds of one response alone, by principle."""
        return {name: x for (name, k, other), x in self.log_odds.items() if (k, other) == (i, None)}


def _read(record: Record, principles: Sequence[Principle], mode: Mode, clip: float) -> _Verdicts:
    """The decided verdicts of the mode under these principles."""
    bound = math.log1p(-clip) - math.log(clip)
    ids = {principle.fingerprint: principle.id for principle in principles}
    return _Verdicts(
        {
            (ids[v.principle], v.response, v.other): max(-bound, min(bound, v.log_odds))
            for v in record.verdicts
            if v.log_odds is not None
            and v.principle in ids
            and (v.other is not None) == (mode == "pairwise")
        },
        mode,
    )


def _standing(principles: Sequence[Principle], known: Mapping[str, float]) -> Standing:
    vetoes = [known.get(p.id) for p in principles if p.veto]
    if any(x is not None and x < 0 for x in vetoes):
        return "broken"
    return "unsure" if None in vetoes else "kept"


_Known = tuple[Mapping[str, float], Standing]
"""A response's log-odds by principle id, and whether it keeps the veto principles."""


def _overall(
    principles: Sequence[Principle], weighted: float | None, i: _Known, j: _Known
) -> float | None:
    """The margin of i over j, vetoes included."""
    (mine, standing), (other, other_standing) = i, j
    if (standing, other_standing) == ("kept", "broken"):
        return max(_breach(principles, mine, other), weighted or 0.0)
    if (standing, other_standing) == ("broken", "kept"):
        return -max(_breach(principles, other, mine), -(weighted or 0.0))
    return weighted


def _breach(
    principles: Sequence[Principle], kept: Mapping[str, float], broken: Mapping[str, float]
) -> float:
    """The widest gap, more than 0, under a veto principle that one keeps and the other breaks."""
    broken_ids = [p.id for p in principles if p.veto and broken.get(p.id, 0.0) < 0]
    return max(kept[name] - broken[name] for name in broken_ids)


def _share(principles: Sequence[Principle], decided: Mapping[str, float]) -> float:
    """The share of all weight that the decided principles have, 0 to 1."""
    weight = math.fsum(p.weight for p in principles if p.id in decided)
    return round(weight / math.fsum(p.weight for p in principles), 9)


def _weighted(principles: Sequence[Principle], values: Mapping[str, float]) -> float | None:
    """Σ weight·value over the principles that have one; None if none has."""
    terms = [p.weight * values[p.id] for p in principles if p.id in values]
    return math.fsum(terms) if terms else None


def _lead(margins: Sequence[Margin]) -> float | None:
    known = [margin.weighted for margin in margins if margin.weighted is not None]
    return math.fsum(known) / len(known) if known else None
