from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines.transformers.budget import Batch, Budget, Plan, by_length

LENGTHS = st.lists(st.integers(1, 50), max_size=40)


@given(LENGTHS, st.integers(1, 200), st.integers(1, 10))
def test_batches_hold_every_row_once_and_keep_the_limits(
    lengths: list[int], tokens: int, rows: int
) -> None:
    batches = by_length(lengths, range(len(lengths)), tokens, rows)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        widest = max(lengths[i] for i in batch)
        assert len(batch) <= rows
        assert len(batch) * widest <= tokens or len(batch) == 1


@given(LENGTHS, st.integers(1, 60))
def test_what_does_not_fit_goes_in_smaller_batches_and_nothing_twice(
    lengths: list[int], memory: int
) -> None:
    done: list[int] = []

    def work(batch: Batch) -> None:
        if len(batch) * max(lengths[i] for i in batch) > memory:
            raise torch.OutOfMemoryError
        done.extend(batch)

    def plan(of: Batch, tokens: int) -> Plan:
        return [(b, partial(work, b)) for b in by_length(lengths, of, tokens, 100)]

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        too_large = Budget(1000, "m").run(range(len(lengths)), plan)
    assert set(too_large) == {i for i, length in enumerate(lengths) if length > memory}
    assert sorted(done + too_large) == list(range(len(lengths)))
    assert len(told) <= 1


def test_other_errors_are_passed_on() -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Budget(10, "m").run([0], lambda of, tokens: [([0], work)])


def test_with_several_workers_every_row_is_done_once_and_threads_are_given_back() -> None:
    done: list[int] = []
    threads = torch.get_num_threads()

    def plan(of: Batch, tokens: int) -> Plan:
        return [([i], partial(done.append, i)) for i in of]

    assert Budget(10, "m", workers=3).run(range(50), plan) == []
    assert sorted(done) == list(range(50))
    assert torch.get_num_threads() == threads


def test_an_error_in_a_worker_is_passed_on_and_ends_the_rest() -> None:
    def work(i: int) -> None:
        raise ValueError(f"no {i}")

    with pytest.raises(ValueError, match="no 0"):
        Budget(10, "m", workers=2).run(
            range(9), lambda of, tokens: [([i], partial(work, i)) for i in of]
        )
