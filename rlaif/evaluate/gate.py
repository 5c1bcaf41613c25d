"""Whether a judge may label at all: the recipe's least figures, and what falls short of them.

    Scorecard + Gate → nothing, or reasons to stop before anything is sampled

A figure counts by the end of its 95 % interval that speaks against the judge, so that few rows
cannot let a bad one through. The rows are balanced: the better response is as often the first as
the second, and as often the longer as the shorter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlaif.errors import DataError
from rlaif.evaluate.comparisons import Comparison
from rlaif.evaluate.scorecard import Scorecard
from rlaif.recipe import Gate
from rlaif.records import fingerprint


def balanced(comparisons: Sequence[Comparison], file: object = None) -> list[Comparison]:
    """The largest part of the comparisons on which neither length nor place tells the better one.

    Ties in gold and responses of equal length stay. What is left out, and what is turned round,
    follows from the texts alone.

    Raises:
        DataError: all better responses are longer, or all are shorter.
    """
    order = sorted(comparisons, key=_hash)
    longer = [c for c in order if _lead(c) > 0]
    shorter = [c for c in order if _lead(c) < 0]
    count = min(len(longer), len(shorter))
    if not count and longer + shorter:
        which = "longer" if longer else "shorter"
        raise DataError(
            f"the better response is the {which} one in every row: a judge that counts words "
            "would pass",
            file=str(file) if file is not None else None, key="gate.data",
            mend="add comparisons in which it is not",
        )  # fmt: skip
    even = [c for c in order if _lead(c) == 0]
    kept = sorted([*longer[:count], *shorter[:count], *even], key=_hash)
    # By turns among those with a better one: first, second, first, …
    turns, made = 0, list[Comparison]()
    for c in kept:
        if c.better is None:
            made.append(c)
            continue
        made.append(c if c.better == turns % 2 else c.swapped)
        turns += 1
    return made


def _lead(comparison: Comparison) -> int:
    """By how many characters the better response is the longer one; 0 for a tie in gold."""
    if comparison.better is None:
        return 0
    better, worse = comparison.better, 1 - comparison.better
    return len(comparison.responses[better]) - len(comparison.responses[worse])


def _hash(comparison: Comparison) -> str:
    principle = comparison.principle.fingerprint if comparison.principle else ""
    return fingerprint([comparison.group, sorted(comparison.responses), principle])


def failures(scorecard: Scorecard, gate: Gate) -> list[str]:
    """Why the judge does not pass, a line each; nothing where it does."""
    accuracy, flips = scorecard.accuracy, scorecard.flip_rate
    confidence = scorecard.calibrated or scorecard.raw
    if not accuracy.rows:
        return [
            f"no comparison of {scorecard.comparisons} got a label: "
            f"{scorecard.tied} ties, {sum(scorecard.abstained.values())} abstentions"
        ]
    found = []
    if not accuracy.low >= gate.min_accuracy:
        found.append(f"accuracy {accuracy} is not surely at least {gate.min_accuracy}")
    if not confidence.high <= gate.max_calibration_error:
        found.append(
            f"calibration error {confidence.error:.3f} ({confidence.low:.3f} to "
            f"{confidence.high:.3f}) is not surely at most {gate.max_calibration_error}"
        )
    if flips.rows and not flips.high <= gate.max_flip_rate:
        found.append(f"flip rate {flips} is not surely at most {gate.max_flip_rate}")
    undecided = (scorecard.tied + sum(scorecard.abstained.values())) / scorecard.comparisons
    if undecided > gate.max_undecided or math.isnan(undecided):
        found.append(
            f"{undecided:.3f} of the comparisons got no label, more than {gate.max_undecided}"
        )
    return found
