"""Whether a loop goes on: what each round must hold to, and which round is the best.

    Figures of the rounds so far → checks → a reason to stop, or none

Each rule stands against a way in which such a loop has been seen to end: answers that grow until
length wins; a judge that gives everything the same mark; data that forgets what is rare; rounds
that change something and better nothing; a student that gets worse while its own marks rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlaif.loop.figures import Figure, Figures
from rlaif.recipe import Stop

Rule = Literal["judge", "length", "scores", "drift", "tail", "falling", "not_better"]


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
    """The best of rounds that have passed: by the held-out metric, else by wins one after another.

    Without a metric, a round is better than the one before it if it wins more often than not.
    """
    found: Figures | None = None
    for one in rounds:
        if found is None or _beats(one, found):
            found = one
    return found


def _beats(later: Figures, earlier: Figures) -> bool:
    for measure in ("metric", "kept"):
        new, old = getattr(later, measure), getattr(earlier, measure)
        if new is not None and old is not None:
            return bool(new.value > old.value)
    return later.win_rate is None or later.win_rate.value > 0.5


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
