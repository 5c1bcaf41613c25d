from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines.prefix import Pack, pack, trie_floor

# Few different tokens, so that prefixes are shared and whole sequences repeat.
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=25)
budgets = st.integers(1, 60)


def prefixes(rows: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(row[: k + 1]) for row in rows for k in range(len(row))}


def path(p: Pack, token: int) -> list[int]:
    """The tokens from the root to this one: those that it sees."""
    return p.input_ids[p.visible()[token]].tolist()


@given(sequences)
def test_the_floor_is_the_number_of_different_prefixes(rows: list[list[int]]) -> None:
    assert trie_floor(rows) == len(prefixes(rows))


@given(sequences, budgets, st.sampled_from([None, 1, 3]))
def test_every_sequence_is_what_its_last_token_sees(
    rows: list[list[int]], budget: int, most: int | None
) -> None:
    packs = pack(rows, budget, most)
    assert all(len(p.sequences) <= (most or len(rows)) for p in packs)
    found = {
        int(i): path(p, last) for p in packs for i, last in zip(p.sequences, p.last, strict=True)
    }
    assert found == dict(enumerate(rows))


@given(sequences, budgets)
def test_a_token_sees_its_ancestors_and_nothing_else(rows: list[list[int]], budget: int) -> None:
    for p in pack(rows, budget):
        seen = p.visible()
        for i in range(len(p.input_ids)):
            ancestors = np.flatnonzero(seen[i])
            assert ancestors[-1] == i
            assert p.position_ids[ancestors].tolist() == list(range(len(ancestors)))
            # Who is seen sees the same path up to itself: one tree, not a net.
            for j in ancestors:
                assert np.flatnonzero(seen[j]).tolist() == ancestors[ancestors <= j].tolist()


@given(sequences)
def test_one_pack_holds_each_prefix_once(rows: list[list[int]]) -> None:
    [p] = pack(rows, budget=10_000)
    assert len(p.input_ids) == trie_floor(rows)
    assert len({tuple(path(p, i)) for i in range(len(p.input_ids))}) == len(p.input_ids)


@given(sequences, budgets)
def test_no_pack_is_over_the_budget_unless_a_sequence_is(
    rows: list[list[int]], budget: int
) -> None:
    for p in pack(rows, budget):
        longest = max(len(rows[i]) for i in p.sequences)
        assert len(p.input_ids) <= max(budget, longest)


@given(sequences, budgets)
def test_no_way_to_cut_is_cheaper(rows: list[list[int]], budget: int) -> None:
    """Against a search over all runs of neighbours in the sorted order."""
    ordered = sorted(rows)
    least = [0]
    for end in range(1, len(ordered) + 1):
        costs = []
        for start in range(end):
            tokens = len(prefixes(ordered[start:end]))
            if tokens <= max(budget, len(ordered[end - 1])):
                costs.append(least[start] + tokens)
        least.append(min(costs))
    assert sum(len(p.input_ids) for p in pack(rows, budget)) == least[-1]


@given(sequences, budgets, st.randoms())
def test_packs_follow_from_the_sequences_not_from_their_order(
    rows: list[list[int]], budget: int, random: object
) -> None:
    def layout(rows: list[list[int]]) -> list[list[int]]:
        return [p.input_ids.tolist() for p in pack(rows, budget)]

    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert layout(shuffled) == layout(rows)


def test_a_long_sequence_takes_its_prefixes_and_copies_with_it() -> None:
    long = list(range(100))
    [p] = pack([long, long[:50], long, long[:99]], budget=10)
    assert p.input_ids.tolist() == long
    assert dict(zip(p.sequences.tolist(), p.last.tolist(), strict=True)) == {
        0: 99,
        1: 49,
        2: 99,
        3: 98,
    }


def test_large_token_ids_share_prefixes_too() -> None:
    rows = [[70_000, 1], [300, 2], [65_536, 0], [300, 1], [70_000, 2]]
    [p] = pack(rows, budget=100)
    assert len(p.input_ids) == trie_floor(rows) == 8


def test_nothing_makes_no_packs() -> None:
    assert pack([], 100) == []
    assert trie_floor([]) == 0


def test_twenty_thousand_sequences_pack_in_seconds() -> None:
    random = np.random.default_rng(0)
    suffixes = random.integers(0, 30_000, (8, 30)).tolist()
    heads = random.integers(0, 30_000, (2500, 120)).tolist()
    rows = [head + suffix for head in heads for suffix in suffixes]
    start = time.process_time()
    packs = pack(rows, 4096)
    assert time.process_time() - start < 5
    assert sum(len(p.input_ids) for p in packs) < 1.001 * trie_floor(rows) < 0.31 * 20_000 * 150
