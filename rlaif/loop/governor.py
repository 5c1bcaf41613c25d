"""Whether a loop goes on: what each round must hold to, and which round is the best.

    Figures of the rounds so far → checks → a reason to stop, or none

Each rule stands against a way in which such a loop has been seen to end: answers that grow until
length wins; a judge that gives everything the same mark; data that forgets what is rare; rounds
that change something and better nothing; a student that gets worse while its own marks rise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlaif.loop.figures import Figure, Figures
from rlaif.recipe import Stop

Rule = Literal["judge", "length", "scores", "drift", "tail", "falling", "not_better"]

_SUREST = 0.001
"""A win rate counts as at least this, and as at most one less this."""
_EQUAL = 1e-9
"""What rounding leaves of log-odds that add up to nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a round does not pass.

    Attributes:
        rule: which check.
        reason: a sentence with the figures.
    """

    rule: Rule
    reason: str


def check(base: Figures | None, rounds: Sequence[Figures], stop: Stop) -> Fault | None:
    """The first rule that the last round breaks; None where it passes.

    Args:
        base: the student before any round; None where it was not measured.
        rounds: the rounds so far; all but the last have passed.
        stop: the rules.
    """
    for rule in (_length, _scores, _drift, _tail, _falling, _not_better):
        if (fault := rule(base, rounds, stop)) is not None:
            return fault
    return None


def best(rounds: Sequence[Figures]) -> Figures | None:
    """The best of rounds that have passed, one after another; the earlier of equals.

    The held-out metric decides; where one of two rounds has none, the judged share of the
    principles that are kept; without that too, wins. A win rate is over the round just before.
    Against an earlier one the log-odds of those between add up, as in the model of Bradley and
    Terry (1952): who beats a round that had lost as clearly to the best one is only its equal.
    """
    place: int | None = None
    for i in range(len(rounds)):
        if place is None or _beats(rounds[place], rounds[place + 1 : i + 1]):
            place = i
    return None if place is None else rounds[place]


def _beats(earlier: Figures, since: Sequence[Figures]) -> bool:
    """Whether the last of the rounds since an earlier one is better than that."""
    later = since[-1]
    for measure in ("metric", "kept"):
        new, old = getattr(later, measure), getattr(earlier, measure)
        if new is not None and old is not None:
            return bool(new.value > old.value)
    won = [_log_odds(one.win_rate.value) for one in since if one.win_rate is not None]
    return not won or sum(won) > _EQUAL


def _log_odds(rate: float) -> float:
    # Who wins every one of a few comparisons is better, but not without end.
    rate = min(max(rate, _SUREST), 1 - _SUREST)
    return math.log(rate / (1 - rate))


def _length(base: Figures | None, rounds: Sequence[Figures], stop: Stop) -> Fault | None:
    now, first = rounds[-1].mean_tokens, None if base is None else base.mean_tokens
    most = stop.max_length_growth
    if most is None or now is None or not first or now <= most * first:
        return None
    return Fault(
        "length",
        f"answers have grown from {first:.1f} to {now:.1f} tokens, over {most:g} times as many",
    )


def _scores(base: Figures | None, rounds: Sequence[Figures], stop: Stop) -> Fault | None:
    counts = rounds[-1].scores
    if stop.max_one_bin is None or not sum(counts):
        return None
    share, fullest = max((n / sum(counts), i) for i, n in enumerate(counts))
    if share <= stop.max_one_bin:
        return None
    # A judge that surely tells known answers apart, and finds all of these good, is right to: that
    # is what a loop is for. A judge that always says yes is no better than chance on known ones.
    known = rounds[-1].judge_accuracy
    if fullest == len(counts) - 1 and known is not None and _low(known) > 0.5:
        return None
    return Fault(
        "scores",
        f"{share:.1%} of the judge's probabilities lie between {fullest / 10:.1f} and "
        f"{(fullest + 1) / 10:.1f}: it tells nothing apart",
    )


def _drift(base: Figures | None, rounds: Sequence[Figures], stop: Stop) -> Fault | None:
    drift = rounds[-1].collapsed("drift")
    if stop.max_drift is None or drift is None or drift <= stop.max_drift:
        return None
    return Fault(
        "drift",
        f"the answers are {drift:.2f} nats from the anchors, above chance; "
        f"{stop.max_drift:g} are allowed",
    )


def _tail(base: Figures | None, rounds: Sequence[Figures], stop: Stop) -> Fault | None:
    before = None if base is None else base.collapsed("tail_coverage")
    now = rounds[-1].collapsed("tail_coverage")
    least = stop.min_tail_coverage
    if least is None or now is None or not before or now >= least * before:
        return None
    return Fault(
        "tail",
        f"of the anchors' rare regions {now:.0%} are reached, after {before:.0%} before any "
        f"round: less than {least:.0%} of them",
    )


def _falling(base: Figures | None, rounds: Sequence[Figures], stop: Stop) -> Fault | None:
    *earlier, last = rounds
    before = best(earlier) or base
    if not stop.falling or before is None or last.metric is None or before.metric is None:
        return None
    if _high(last.metric) >= _low(before.metric):
        return None
    return Fault(
        "falling",
        f"the held-out metric has fallen from {before.metric.value:.3f} to "
        f"{last.metric.value:.3f}, by more than both intervals",
    )


def _not_better(base: Figures | None, rounds: Sequence[Figures], stop: Stop) -> Fault | None:
    won = rounds[-1].win_rate
    if not stop.not_better or won is None or _low(won) > 0.5:
        return None
    return Fault(
        "not_better",
        f"it wins {won.value:.1%} of the comparisons with the student before it "
        f"({_low(won):.1%} to {_high(won):.1%}): not surely more than half",
    )


def _low(figure: Figure) -> float:
    return figure.value if figure.low is None else figure.low


def _high(figure: Figure) -> float:
    return figure.value if figure.high is None else figure.high
