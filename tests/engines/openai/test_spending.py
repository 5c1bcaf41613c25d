from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines.kept import Kept
from rlaif.engines.openai.spending import Prices, Spending
from rlaif.errors import BudgetError, EngineError

PRICES = Prices.read({"input": 2, "output": 8, "cached_input": 0.5})
D = Decimal


def spending(kept: Kept, cap: str | None = "1") -> Spending:
    return Spending(kept, "spend", PRICES, None if cap is None else D(cap))


def test_prices_are_of_a_million_tokens() -> None:
    assert PRICES.cost(1_000_000, 0, 0) == 2
    assert PRICES.cost(1_000_000, 400_000, 1_000_000) == D("1.2") + D("0.2") + 8
    assert PRICES.cost(1_000_000, 0, 0, batch=True) == 1
    assert PRICES.most(1_000_000, 1_000_000) == 10
    dear_cache = Prices.read({"input": 1, "output": 1, "cached_input": 3})
    assert dear_cache.most(1_000_000, 0) == 3


@pytest.mark.parametrize(
    ("given_", "match"),
    [
        ({"input": 1}, "prices.output: is missing"),
        ({"input": 1, "output": 1, "inptu": 1}, "prices.inptu: no such price"),
        ({"input": -1, "output": 1}, "prices.input: is no amount"),
        ({"input": "free", "output": 1}, "prices.input"),
        ({"input": True, "output": 1}, "prices.input"),
        ({"input": float("nan"), "output": 1}, "prices.input"),
    ],
)
def test_prices_that_cannot_be_are_refused(given_: dict[str, Any], match: str) -> None:
    with pytest.raises(EngineError, match=match):
        Prices.read(given_)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.booleans()), max_size=40),
    st.integers(0, 100),
    st.integers(1, 6),
)
def test_the_cap_is_never_passed_and_no_room_is_wasted(
    requests: list[tuple[int, int, bool]], cap: int, workers: int
) -> None:
    """Each request may cost `a` and costs at most that; some die on their way."""
    kept = Kept(None)
    money = spending(kept, str(cap))
    refused: list[int] = []

    async def run() -> None:
        waiting = iter(requests)

        async def worker() -> None:
            for most, other, dies in waiting:
                cost = most if dies else min(most, other)
                try:
                    await money.reserve(D(most))
                except EngineError:
                    refused.append(most)
                    continue
                on_disk = json.loads(kept._memory["spend"]) if "spend" in kept._memory else {}
                assert D(on_disk.get("spent", "0")) >= money.spent
                await asyncio.sleep(0)
                money.settle(D(most), D(cost))
                assert money.spent <= cap

        await asyncio.gather(*(worker() for _ in range(workers)))

    asyncio.run(run())
    for most in refused:
        assert money.spent + most > cap or most > cap - sum(m for m, _, _ in requests)


def test_a_request_waits_for_others_to_settle_before_it_is_refused() -> None:
    money = spending(Kept(None), "10")

    async def run() -> None:
        await money.reserve(D(8))
        later = asyncio.create_task(money.reserve(D(8)))
        await asyncio.sleep(0.01)
        assert not later.done()
        money.settle(D(8), D(1))
        await later
        money.settle(D(8), D(8))
        with pytest.raises(EngineError, match=r"max_spend: the cap is reached: 9 spent in 2 req"):
            await money.reserve(D(8))

    asyncio.run(run())


def test_who_holds_a_purse_of_its_own_is_asked_before_anything_is_paid() -> None:
    money = spending(Kept(None), None)
    asked: list[float] = []

    def ask(more: float) -> None:
        asked.append(more)
        if float(money.spent) + more > 10:
            raise BudgetError("no more")

    money.before = ask

    async def run() -> None:
        await money.reserve(D(8))
        later = asyncio.create_task(money.reserve(D(6)))
        await asyncio.sleep(0.01)
        assert not later.done(), "the first may cost less than it might"
        money.settle(D(8), D(1))
        await later
        money.settle(D(6), D(6))
        with pytest.raises(BudgetError, match="no more"):
            await money.reserve(D(4))

    asyncio.run(run())
    assert asked == [8, 14, 6, 4]
    with pytest.raises(BudgetError, match="no more"):
        money.reserve_batch("b", D(4))
    money.reserve_batch("b", D(3))
    money.reserve_batch("b", D(3))
    assert money.spent == 10


def test_what_a_killed_process_had_reserved_counts_as_spent(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    killed = spending(kept, "10")

    async def run() -> None:
        await killed.reserve(D(4))
        killed.settle(D(4), D(4))
        await killed.reserve(D(3))

    asyncio.run(run())
    again = spending(kept, "10")
    assert 7 <= again.spent <= D("7.1")


def test_what_was_spent_is_exact_after_an_orderly_end(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    money = spending(kept, "10")

    async def run() -> None:
        await money.reserve(D(4))
        money.settle(D(4), D("1.5"))

    asyncio.run(run())
    money.flush()
    again = spending(kept, None)
    assert (again.spent, again.requests) == (D("1.5"), 1)


def test_a_batch_counts_once_however_often_it_is_told_of(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    money = spending(kept, "10")
    money.reserve_batch("b", D(8))
    money.reserve_batch("b", D(8))
    assert money.spent == 8
    with pytest.raises(EngineError, match="max_spend"):
        money.reserve_batch("c", D(3))
    money.settle_batch("b", D(2))
    money = spending(kept, "10")
    money.settle_batch("b", D(2))
    assert money.spent == 2


def test_a_damaged_file_is_not_taken_for_nothing_spent(tmp_path: Path) -> None:
    (tmp_path / "spend.json").write_text("{")
    with pytest.raises(EngineError, match=r"spend\.json: is damaged"):
        spending(Kept(tmp_path))
