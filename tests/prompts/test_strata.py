from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.cells import Cells
from rlaif.entropy import entropy
from rlaif.errors import DataError
from rlaif.prompts.strata import even_quotas, level_for, stratified

SUPPLY = st.lists(st.integers(0, 30), min_size=1, max_size=10).map(lambda v: np.array(v, np.int64))


@given(SUPPLY, st.data())
def test_quotas_are_as_even_as_the_supply_allows(supply: np.ndarray, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, int(supply.sum())))
    quotas = even_quotas(supply, n, np.random.default_rng(0))
    assert quotas.sum() == n and (quotas >= 0).all() and (quotas <= supply).all()
    more_left = quotas[quotas < supply]
    if len(more_left):  # what could give more gives no less than any other, but for the last one
        assert quotas.max() - more_left.min() <= 1


@given(SUPPLY)
def test_all_of_the_supply_is_all_of_it(supply: np.ndarray) -> None:
    assert (even_quotas(supply, int(supply.sum()), np.random.default_rng(0)) == supply).all()


@pytest.mark.parametrize("seed", range(20))
def test_what_is_left_over_comes_from_regions_that_have_more(seed: int) -> None:
    quotas = even_quotas(np.array([1, 9, 9, 1, 0]), 7, np.random.default_rng(seed))
    assert sorted(quotas.tolist()) == [0, 1, 1, 2, 3]


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match="there are 3 prompts to draw from"):
        even_quotas(np.array([1, 2]), 4, np.random.default_rng(0))


def test_a_stratified_draw_is_even_over_regions_and_follows_from_the_seed() -> None:
    cells = Cells(np.eye(3, dtype=np.float32))
    vectors = np.repeat(np.eye(3, dtype=np.float32), [90, 9, 2], axis=0)
    drawn = stratified(vectors, cells, 18, seed=4)
    assert cells.counts(vectors[drawn]).tolist() == [8, 8, 2]
    assert len(set(drawn.tolist())) == 18
    assert drawn.tolist() == stratified(vectors, cells, 18, seed=4).tolist()
    assert drawn.tolist() != stratified(vectors, cells, 18, seed=5).tolist()
    assert len(stratified(vectors, cells, 0, seed=4)) == 0


@given(SUPPLY.filter(lambda v: len(v) > 1 and v.any()), st.floats(0, 1))
@settings(deadline=None)
def test_the_level_is_the_lowest_that_is_even_enough(supply: np.ndarray, wanted: float) -> None:
    level = level_for(supply, wanted)

    def even(to: int) -> float:
        return entropy(np.maximum(supply, to)) / np.log(len(supply))

    assert even(level) >= wanted - 1e-9
    assert level == 0 or even(level - 1) < wanted


def test_regions_that_are_even_enough_have_no_level_to_reach() -> None:
    assert level_for(np.array([5, 5, 5]), 1.0) == 0
    assert level_for(np.array([5, 0, 5]), 1.0) == 5
