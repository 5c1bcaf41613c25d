"""Shared prefixes: lay token sequences out so that every common prefix is computed once.

Sorted, the sequences are a depth-first walk of their trie, and the common prefix of neighbours
says where each leaves the path of the one before. A pack is a run of neighbours laid out as one
row of tokens; a token sees its ancestors alone, and its position is its depth. So the model
computes for each sequence just what it would compute for it alone. This is index work: no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_NEVER = np.iinfo(np.int64).max // 2

Ints = NDArray[np.int64]
Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class Pack:
    """A part of the trie as one row of `n` tokens in depth-first order.

    Attributes:
        input_ids: the tokens, shape (n,).
        position_ids: the depth of each in its sequence, shape (n,).
        ends: where each token's subtree ends, shape (n,): token `j` is an ancestor of token `i`,
            or itself, if and only if ``j <= i < ends[j]``.
        sequences: which sequences of the input the pack holds, shape (s,).
        last: where the last token of each of them lies, shape (s,).
    """

    input_ids: Ints
    position_ids: Ints
    ends: Ints
    sequences: Ints
    last: Ints

    def visible(self) -> NDArray[np.bool_]:
        """Which token (column) each token (row) sees: its ancestors and itself, shape (n, n)."""
        at = np.arange(len(self.ends))
        seen: NDArray[np.bool_] = (at <= at[:, None]) & (at[:, None] < self.ends)
        return seen


def trie_floor(sequences: Sequence[Tokens]) -> int:
    """The number of tokens in the trie of all sequences: the least that must be computed."""
    ordered = _sorted(sequences)[1]
    return int(sum(len(s) for s in ordered) - _common_prefixes(ordered).sum())


def pack(sequences: Sequence[Tokens], budget: int, most: int | None = None) -> list[Pack]:
    """Lay all sequences out in packs of at most `budget` tokens, the cheapest way.

    A pack begins at the root again, so where two packs meet, their common prefix is computed
    twice. The cuts are those with the fewest tokens in all. They follow from the arguments alone.

    Args:
        sequences: token ids, none of them empty.
        budget: the most tokens in a pack; a longer sequence has a pack to itself (with its
            prefixes and duplicates).
        most: the most sequences in a pack; None sets no limit.
    """
    order, ordered = _sorted(sequences)
    common = _common_prefixes(ordered)
    lengths = np.array([len(s) for s in ordered], dtype=np.int64)
    cuts = _cheapest_cuts(lengths, common, budget, most or len(ordered))
    return [
        _lay_out(ordered[a:b], common[a:b], order[a:b]) for a, b in pairwise([*cuts, len(ordered)])
    ]


def _sorted(sequences: Sequence[Tokens]) -> tuple[Ints, list[NDArray[np.int32]]]:
    arrays = [np.asarray(s, dtype=np.int32) for s in sequences]
    # Any order that keeps equal prefixes together will do, and bytes compare the fastest.
    keys = [a.tobytes() for a in arrays]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return np.array(order, dtype=np.int64), [arrays[i] for i in order]


def _common_prefixes(ordered: Sequence[NDArray[np.int32]]) -> Ints:
    """How many first tokens each sequence shares with the one before it; 0 for the first."""
    common = np.zeros(len(ordered), dtype=np.int64)
    for i, (a, b) in enumerate(pairwise(ordered), start=1):
        shorter = min(len(a), len(b))
        differs = a[:shorter] != b[:shorter]
        where = int(differs.argmax()) if shorter else 0
        common[i] = where if shorter and differs[where] else shorter
    return common


def _cheapest_cuts(lengths: Ints, common: Ints, budget: int, most: int) -> list[int]:
    """Where each pack begins: dynamic programming over the last cut."""
    new_tokens = np.concatenate([[0], np.cumsum(lengths - common)])
    least = np.zeros(len(lengths) + 1, dtype=np.int64)
    cut_before = np.zeros(len(lengths) + 1, dtype=np.int64)
    # What a pack from each cut on costs besides the tokens up to its end.
    head = common - new_tokens[:-1]
    first = 0
    for end in range(1, len(lengths) + 1):
        fits = max(budget, int(lengths[end - 1])) - new_tokens[end]
        while new_tokens[first] < -fits or end - first > most:
            first += 1
        heads = head[first:end]
        costs = np.where(heads <= fits, least[first:end] + heads, _NEVER)
        best = int(costs.argmin())
        least[end], cut_before[end] = costs[best] + new_tokens[end], first + best
    cuts: list[int] = []
    end = len(lengths)
    while end:
        end = int(cut_before[end])
        cuts.append(end)
    return cuts[::-1]


def _lay_out(ordered: Sequence[NDArray[np.int32]], common: Ints, order: Ints) -> Pack:
    common = common.copy()
    common[0] = 0  # a pack begins at the root
    lengths = np.array([len(s) for s in ordered], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths - common)])
    total = int(starts[-1])
    ids, positions, ends = (np.empty(total, dtype=np.int64) for _ in range(3))
    # From the last sequence to the first: where the subtree of a token at each depth ends.
    end_at = np.full(int(lengths.max()), total, dtype=np.int64)
    for i in range(len(ordered) - 1, -1, -1):
        new, here = slice(common[i], lengths[i]), slice(starts[i], starts[i + 1])
        ids[here] = ordered[i][new]
        positions[here] = np.arange(common[i], lengths[i])
        ends[here] = end_at[new]
        end_at[common[i] :] = starts[i]
    return Pack(ids, positions, ends, order, starts[1:] - 1)
