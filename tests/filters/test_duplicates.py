from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.errors import DataError, RecipeError
from rlaif.filters import duplicates
from rlaif.filters.duplicates import Duplicates, near_duplicates
from rlaif.nearest import Vectors

WIDTH = 12


def clustered(rows: int, clusters: int, seed: int) -> Vectors:
    """Rows of a few clusters, some of them near-copies at 0.92 and some not."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, WIDTH))
    vectors = centres[rng.integers(clusters, size=rows)]
    vectors = vectors + 0.35 * rng.standard_normal(vectors.shape)
    found: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


def one_by_one(vectors: Vectors, threshold: float) -> Duplicates:
    """The same, a row at a time."""
    keep = np.ones(len(vectors), bool)
    of = np.full(len(vectors), -1)
    similarity = np.full(len(vectors), np.nan, np.float32)
    for row, products in enumerate(vectors @ vectors.T):
        earlier = np.flatnonzero(keep[:row])
        if len(earlier) and products[earlier].max() >= threshold:
            of[row] = earlier[products[earlier].argmax()]
            keep[row], similarity[row] = False, products[of[row]]
    return Duplicates(keep, of, similarity)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 16)


@pytest.fixture
def by_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_EXACT", 0)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 90), clusters=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_row_stays_unless_an_earlier_one_that_stays_is_near(
    rows: int, clusters: int, seed: int
) -> None:
    vectors = clustered(rows, clusters, seed)
    found, wanted = near_duplicates(vectors), one_by_one(vectors, 0.92)
    np.testing.assert_array_equal(found.keep, wanted.keep)
    np.testing.assert_array_equal(found.of, wanted.of)
    np.testing.assert_allclose(found.similarity, wanted.similarity, atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 90), threshold=st.floats(0.5, 0.99), seed=st.integers(0, 99))
def test_no_two_that_stay_are_near_and_every_copy_is_near_one_that_stays(
    rows: int, threshold: float, seed: int
) -> None:
    vectors = clustered(rows, 5, seed)
    found = near_duplicates(vectors, threshold)
    kept, copies = vectors[found.keep], ~found.keep
    assert (np.tril(kept @ kept.T, -1) < threshold + 1e-6).all()
    assert found.keep[found.of[copies]].all()
    assert (found.of[copies] < np.flatnonzero(copies)).all()
    near = (vectors[copies] * vectors[found.of[copies]]).sum(1)
    assert (near >= threshold - 1e-5).all()
    np.testing.assert_allclose(found.similarity[copies], near, atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_the_first_of_a_cluster_stays() -> None:
    one, other = clustered(2, 2, 0)
    found = near_duplicates(np.stack([one] * 40 + [other] * 40))
    assert np.flatnonzero(found.keep).tolist() == [0, 40]
    assert found.of.tolist() == [-1] + [0] * 39 + [-1] + [40] * 39


def test_a_chain_does_not_drop_what_is_near_only_to_a_dropped_row() -> None:
    angles = np.radians([0, 20, 40])  # neighbours at 0.94, the ends at 0.77
    found = near_duplicates(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    assert found.keep.tolist() == [True, False, True]


@pytest.mark.usefixtures("by_cells")
def test_cells_find_nearly_all_that_comparing_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.concatenate([clustered(3000, 300, 1), clustered(3000, 300, 1)[::-1]])
    found = near_duplicates(vectors)
    assert not (found.keep[:3000] & found.keep[3000:][::-1]).any()  # the same to the bit
    monkeypatch.setattr(duplicates, "_EXACT", 10_000)
    exact = near_duplicates(vectors)
    assert (found.keep & ~exact.keep).sum() <= 0.05 * (~exact.keep).sum()
    assert (found.similarity[~found.keep] >= 0.92 - 1e-6).all()
    assert found.keep[found.of[~found.keep]].all()


@pytest.mark.usefixtures("by_cells")
def test_cells_give_the_same_answer_again() -> None:
    vectors = clustered(2000, 200, 3)
    one, again = (near_duplicates(vectors, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.of, again.of)


@pytest.mark.parametrize("exact", [True, False])
def test_texts_that_are_all_the_same_are_one(monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    if not exact:
        monkeypatch.setattr(duplicates, "_EXACT", 0)
    found = near_duplicates(np.tile(clustered(1, 1, 0), (5000, 1)), threshold=1.0)
    assert found.keep.sum() == 1
    assert (found.of[1:] == 0).all()


def test_a_threshold_of_one_drops_what_is_equal_though_its_product_is_a_hair_less() -> None:
    found = near_duplicates(np.repeat(clustered(300, 300, 0), 2, axis=0), threshold=1.0)
    assert found.keep.tolist() == [True, False] * 300


@pytest.mark.parametrize("exact", [True, False])
def test_rows_without_a_direction_are_no_copies(
    monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    if not exact:
        monkeypatch.setattr(duplicates, "_EXACT", 0)
    vectors = np.concatenate([np.zeros((3, WIDTH)), clustered(200, 1, 0)]).astype(np.float32)
    found = near_duplicates(vectors, threshold=0.5)
    assert found.keep[:3].all()
    assert (found.of[3:] != 0).all()


def test_no_rows_are_no_copies() -> None:
    assert near_duplicates(np.zeros((0, WIDTH), np.float32)).keep.shape == (0,)


def test_what_cannot_be_compared_is_said_in_one_line() -> None:
    broken = clustered(5, 2, 0)
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="not finite: 1 of the embeddings, the first in row 3"):
        near_duplicates(broken)
    with pytest.raises(DataError, match="must be a table"):
        near_duplicates(broken[0])
    for threshold in (0.0, 1.5, float("nan")):
        with pytest.raises(RecipeError, match="threshold: a cosine is wanted"):
            near_duplicates(clustered(5, 2, 0), threshold)
