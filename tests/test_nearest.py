from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rlaif import nearest as nearest_module
from rlaif import nearest_scan
from rlaif.errors import DataError
from rlaif.nearest import Nearest, Precision, Vectors, nearest

BOTH: tuple[Precision, ...] = ("float32", "bfloat16")


def unit(rows: int, width: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    found: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def plain(queries: Vectors, anchors: Vectors, k: int, leave_out_self: bool = False) -> Nearest:
    """The same by one product, sorted."""
    products = queries.astype(np.float64) @ anchors.T.astype(np.float64)
    if leave_out_self:
        np.fill_diagonal(products, -np.inf)
    index = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return Nearest(np.take_along_axis(products, index, axis=1).astype(np.float32), index)


def same(found: Nearest, wanted: Nearest, queries: Vectors, anchors: Vectors) -> None:
    """As similar, and each index is an anchor of that similarity: equal products may swap."""
    np.testing.assert_allclose(found.similarity, wanted.similarity, atol=1e-6)
    told = np.einsum("nw,nkw->nk", queries, anchors[found.index])
    np.testing.assert_allclose(told, wanted.similarity, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in found.index.tolist())


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks and chunks, of few vectors."""
    monkeypatch.setattr(nearest_scan, "sizes", lambda _: (8, 32, 8))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("precision", BOTH)
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 30), anchors=st.integers(1, 120), width=st.integers(1, 20),
    k=st.integers(1, 9), leave_out_self=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
def test_blocks_find_what_one_product_finds(
    precision: Precision, rows: int, anchors: int, width: int, k: int, leave_out_self: bool,
    seed: int,
) -> None:  # fmt: skip
    there = unit(anchors, width, seed)
    queries = there if leave_out_self else unit(rows, width, seed + 10)
    k = min(k, anchors - leave_out_self)
    if not k:
        return
    found = nearest(queries, there, k, precision=precision, leave_out_self=leave_out_self)
    same(found, plain(queries, there, k, leave_out_self), queries, there)


def hair_apart() -> tuple[Vectors, Vectors]:
    """Queries, and anchors of which 40 are nearly equal: bfloat16 takes the wrong one of many."""
    anchors = np.concatenate([unit(50, 64, 1)] * 40)
    noise = np.random.default_rng(2).normal(0, 3e-4, anchors.shape)
    return unit(1500, 64), anchors + noise.astype(np.float32)


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("k", [1, 3])
def test_anchors_that_bfloat16_cannot_tell_apart_are_told_apart(
    precision: Precision, k: int
) -> None:
    queries, anchors = hair_apart()
    found = nearest(queries, anchors, k, precision=precision)
    same(found, plain(queries, anchors, k), queries, anchors)


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("copies", [3, 2000])
def test_of_equal_anchors_the_first_is_nearest(precision: Precision, copies: int) -> None:
    anchors = np.tile(unit(5, 32), (copies, 1))
    found = nearest(unit(40, 32, 1), anchors, precision=precision)
    assert found.index.max() < 5
    assert nearest(anchors[:1], anchors, 3, precision=precision).index.tolist() == [[0, 5, 10]]


def test_real_texts_have_the_same_nearest_in_both_precisions(real: Vectors) -> None:
    ours, wanted = (nearest(real, real, leave_out_self=True, precision=p) for p in BOTH[::-1])
    np.testing.assert_array_equal(ours.index, wanted.index)
    np.testing.assert_array_equal(ours.similarity, wanted.similarity)


@pytest.fixture(scope="module")
def real() -> Vectors:
    from rlaif.embed import Embedder

    nouns, verbs = ("violin", "garden", "contract", "volcano"), ("repair", "sell", "describe")
    frames = ("How do I {} a {}?", "{} a {}, please.", "Why would anyone {} a {} at night?")
    return Embedder()([f.format(v, n) for n in nouns for v in verbs for f in frames]).vectors


def test_queries_may_come_block_by_block_and_are_not_held(small_blocks: None) -> None:
    alive = [0]

    class Block(np.ndarray):  # type: ignore[type-arg]
        def __del__(self) -> None:
            alive[0] -= 1

    def blocks() -> Iterator[NDArray[np.float32]]:
        for size in (3, 0, 11, 1):
            alive[0] += 1
            assert alive[0] <= 2
            yield unit(size, 6, size).view(Block)

    anchors, joined = unit(40, 6, 99), np.concatenate([unit(n, 6, n) for n in (3, 11, 1)])
    found = nearest(blocks(), anchors, 2)
    np.testing.assert_array_equal(found.index, plain(joined, anchors, 2).index)


def test_threads_read_no_further_ahead_than_two_blocks_each_and_are_given_back(
    small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchors, done, before = unit(40, 6, 99), list[int](), torch.get_num_threads()
    search = nearest_module._Search.block

    def slow(self: nearest_module._Search, start: int, block: Vectors) -> nearest_module.Found:
        assert torch.get_num_threads() == 1
        time.sleep(0.005)
        done.append(start)
        return search(self, start, block)

    def stream() -> Iterator[Vectors]:
        for i in range(30):
            assert i - len(done) <= 2 * 3
            yield unit(8, 6, i)

    monkeypatch.setattr(nearest_module._Search, "block", slow)
    torch.set_num_threads(3)
    try:
        found = nearest(stream(), anchors)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    joined = np.concatenate([unit(8, 6, i) for i in range(30)])
    np.testing.assert_array_equal(found.index, plain(joined, anchors, 1).index)


def test_no_row_is_its_own_neighbour_in_a_stream_and_among_its_copies(small_blocks: None) -> None:
    rows = np.concatenate([unit(30, 6), np.tile(unit(1, 6, 1), (600, 1))])
    found = nearest(iter([rows[:7], rows[7:]]), rows, leave_out_self=True)
    assert (found.index[:, 0] != np.arange(len(rows))).all()
    assert found.index[30:33, 0].tolist() == [31, 30, 30]
    same(found, plain(rows, rows, 1, leave_out_self=True), rows, rows)


def test_queries_may_lie_in_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "queries.npy", unit(700, 8))
    mapped = np.load(tmp_path / "queries.npy", mmap_mode="r")
    found = nearest(mapped, np.array(mapped[:300]))
    assert found.index[:300, 0].tolist() == list(range(300))


def test_no_queries_are_no_answer() -> None:
    assert nearest(np.zeros((0, 4), np.float32), unit(3, 4), 2).index.shape == (0, 2)
    assert nearest(iter([]), unit(3, 4)).similarity.shape == (0, 1)


def test_a_query_without_direction_is_as_near_to_all() -> None:
    found = nearest(np.zeros((2, 8), np.float32), unit(900, 8), precision="bfloat16")
    assert found.index.tolist() == [[0], [0]]
    assert found.similarity.tolist() == [[0.0], [0.0]]


def test_lengths_other_than_one_are_multiplied_as_they_are() -> None:
    queries, anchors = 30 * unit(50, 16), unit(400, 16, 1) * np.linspace(0.1, 9, 400)[:, None]
    anchors = anchors.astype(np.float32)
    found = nearest(queries, anchors, 2, precision="bfloat16")
    np.testing.assert_array_equal(found.index, plain(queries, anchors, 2).index)


def test_products_are_exact_in_a_process_that_allows_others() -> None:
    def queries() -> Iterator[Vectors]:
        yield unit(3, 4)
        seen.append(torch.get_float32_matmul_precision())

    before, seen = torch.get_float32_matmul_precision(), list[str]()
    try:
        torch.set_float32_matmul_precision("medium")
        nearest(queries(), unit(5, 4))
        seen.append(torch.get_float32_matmul_precision())
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest", "medium"]


def test_what_cannot_be_compared_is_said_in_one_line() -> None:
    good, broken = unit(4, 8), unit(4, 8)
    broken[2, 3] = np.nan
    for queries, anchors, k, words in (
        (good, good[:0], 1, "there are no anchors"),
        (good, broken, 1, "not finite: 1 of the anchors, the first in row 2"),
        (broken, good, 1, "not finite: 1 of the queries, the first in row 2"),
        (unit(4, 6), good, 1, "queries are of width 6, the anchors of width 8"),
        (good, good, 5, r"k: there are 4 neighbours to find \(got 5\)"),
        (good, good, 0, r"got 0"),
        (good[0], good, 1, "queries must be a table"),
    ):
        with pytest.raises(DataError, match=words):
            nearest(queries, anchors, k)
    with pytest.raises(DataError, match="0 neighbours"):
        nearest(good[:1], good[:1], leave_out_self=True)
    with pytest.raises(DataError, match="leave_out_self: there are more queries than the 4"):
        nearest(unit(5, 8), good, leave_out_self=True)
    with pytest.raises(ValueError, match="float16"):
        nearest(good, good, precision="float16")  # type: ignore[arg-type]


def test_a_broken_row_is_counted_from_the_first_query(small_blocks: None) -> None:
    queries = unit(30, 4)
    queries[21] = np.inf
    with pytest.raises(DataError, match="row 21"):
        nearest(queries, unit(5, 4))


@settings(max_examples=40, deadline=None)
@given(
    anchors=st.integers(1, 300), queries=st.integers(1, 20), k=st.integers(1, 6),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_no_group_that_holds_a_nearest_is_passed_over(
    anchors: int, queries: int, k: int, seed: int
) -> None:
    there, asked = unit(anchors, 12, seed), unit(queries, 12, seed + 1)
    scan = nearest_scan.ready(torch.from_numpy(there), torch.bfloat16)
    rows, groups, counts = scan.near_groups(torch.from_numpy(asked), k, None)
    members = scan.members(groups)
    looked: list[set[int]] = [set() for _ in range(queries)]
    for row, some in zip(rows.tolist(), members.tolist(), strict=True):
        looked[row].update(some)
    wanted = plain(asked, there, min(k, anchors)).index
    assert all(set(w) <= some for w, some in zip(wanted.tolist(), looked, strict=True))
    assert int(counts.sum()) == len(rows)
