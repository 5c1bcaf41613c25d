"""Which responses become training data, or why none does: from scores to indices, for pick.py.

What holds for every choice:

- The chosen response is not empty, ended by itself (one that was cut off would teach to stop in
  the middle) and keeps the vetoes. As rejected any response will do, if it is worse.
- Chosen and rejected differ in more than white space, and the margin between them is over 0.
- Neither a response's place nor the alphabet decides: equal scores are ordered by a hash.

Length: with `prefer_shorter_within`, the shortest of the responses that close to the best stands in
for it; where all pairs are made, a longer response has to win by more than that. The rejected is
found by score alone: to look for a long one would be a label about length.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from rlaif.label.scores import Scores
from rlaif.recipe import Pick as Settings
from rlaif.records import Drop, Record, fingerprint, seed_of

Pair = tuple[int, int]
"""The indices of the chosen and of the rejected response."""

# Why a record gives no row. One more reason holds the recipe's number: "margin under 1.0".
NO_RESPONSE = "no response"
ONE_RESPONSE = "one response"
IDENTICAL = "identical texts"
ABSTAINED = "all abstained"
UNDECIDED = "too little decided"
UNFINISHED = "empty or cut off"
VETOED = "vetoed"
TIE = "tie"
LENGTH = "no better than a shorter one"

_ROUNDING = 1e-9  # nats; closer scores are equal


def best_of_n(record: Record, scores: Scores, settings: Settings) -> tuple[int, float] | Drop:
    """The index of the best response, and its margin in nats over the mean of the others."""
    choosable = _choosable(record, scores, "sft")
    if isinstance(choosable, Drop):
        return choosable
    best = _best(record, scores, choosable, settings.prefer_shorter_within)
    margins = _margins(scores, [best]).values()
    mean = math.fsum(margins) / len(margins)
    if mean < max(settings.min_margin, _ROUNDING):
        return _too_close(record, "sft", margins, f"margin under {settings.min_margin}")
    return best, mean


def preferences(record: Record, scores: Scores, settings: Settings) -> dict[Pair, float] | Drop:
    """The pairs to make, with their margins in nats.

    `best_worst` takes the best response and the one that it beats by most; `best_random` the best
    and, by a seed that follows from the record's id, any that it beats by enough; `all` every pair.
    """
    choosable = _choosable(record, scores, "pairs")
    if isinstance(choosable, Drop):
        return choosable
    within = settings.prefer_shorter_within
    if settings.pairs != "all":
        choosable = [_best(record, scores, choosable, within)]
    margins = _margins(scores, choosable)
    clear = {p: m for p, m in margins.items() if m >= max(settings.pair_margin, _ROUNDING)}
    if not clear:
        reason = f"margin under {settings.pair_margin}"
        return _too_close(record, "pairs", margins.values(), reason)
    if settings.pairs == "all":
        fair = {p: m for p, m in clear.items() if not _owed_to_length(record, p, m, within)}
        return fair or Drop(record.id, "pairs", LENGTH)
    pair = _worst(record, clear) if settings.pairs == "best_worst" else _random(record, clear)
    return {pair: clear[pair]}


def _choosable(record: Record, scores: Scores, stage: str) -> list[int] | Drop:
    """The responses that may be chosen and can be compared with another one."""
    if (count := len(record.responses)) < 2:
        return Drop(record.id, stage, ONE_RESPONSE if count else NO_RESPONSE)
    if len(scores.responses) < 2:
        return Drop(record.id, stage, IDENTICAL)
    compared = {i for i, _ in _margins(scores, scores.responses)}
    if not compared:
        return _undecided(record, stage)
    finished = [i for i in scores.responses if _is_finished(record, i)]
    if not finished:
        return Drop(record.id, stage, UNFINISHED)
    kept = [i for i in finished if scores.vetoes[i] == "kept"]
    if not kept:
        return Drop(record.id, stage, VETOED)
    return [i for i in kept if i in compared] or _undecided(record, stage)


def _is_finished(record: Record, index: int) -> bool:
    response = record.responses[index]
    return response.finish != "length" and bool(response.text.strip())


def _undecided(record: Record, stage: str) -> Drop:
    reasons = [v.reason for v in record.verdicts if v.reason is not None]
    abstained = len(reasons) == len(record.verdicts)
    detail = reasons[0] if reasons else ""
    return Drop(record.id, stage, ABSTAINED if abstained else UNDECIDED, detail)


def _too_close(record: Record, stage: str, margins: Collection[float], reason: str) -> Drop:
    tied = all(abs(margin) <= _ROUNDING for margin in margins)
    return Drop(record.id, stage, TIE if tied else reason, f"widest margin {max(margins):.3f}")


def _margins(scores: Scores, starts: Sequence[int]) -> dict[Pair, float]:
    """The margins that were decided of these responses over any other, vetoes included."""
    return {
        (i, j): margin.log_odds
        for (i, j), margin in scores.margins.items()
        if i in starts and margin.log_odds is not None
    }


def _best(record: Record, scores: Scores, choosable: Sequence[int], within: float | None) -> int:
    """The response with the greatest lead, or the shortest of those within so much of it."""

    def order(i: int) -> tuple[float, str]:
        lead = scores.lead[i]
        return (math.inf if lead is None else -round(lead, 9), _hash(record, i))

    best = min(choosable, key=order)
    if within is None:
        return best
    margins = _margins(scores, [best])
    close = [i for i in choosable if i == best or margins.get((best, i), math.inf) <= within]
    return min(close, key=lambda i: (record.responses[i].tokens, order(i)))


def _worst(record: Record, clear: Mapping[Pair, float]) -> Pair:
    return min(clear, key=lambda pair: (-round(clear[pair], 9), _hash(record, pair[1])))


def _random(record: Record, clear: Mapping[Pair, float]) -> Pair:
    in_order = sorted(clear, key=lambda pair: _hash(record, pair[1]))
    return in_order[seed_of("best_random", record.id) % len(in_order)]


def _owed_to_length(record: Record, pair: Pair, margin: float, within: float | None) -> bool:
    chosen, rejected = (record.responses[i].tokens for i in pair)
    return within is not None and chosen > rejected and margin <= within


def _hash(record: Record, index: int) -> str:
    return fingerprint(record.responses[index].text)
