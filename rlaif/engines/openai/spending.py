"""What requests cost, and a cap on it that is never passed.

The most that a request can cost is reserved before it is sent, and what it did cost is settled
afterwards. On disk stands never less than what is spent and reserved together, so that a process
that is killed in the middle cannot make the next one spend more than the cap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from rlaif.engines.kept import Kept
from rlaif.errors import EngineError, RlaifError

_MILLION = Decimal(1_000_000)
_STEPS = 100  # the file is written about so often on the way to the cap
_HALF = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a million tokens, in any one currency.

    Attributes:
        input: of a prompt.
        output: of an answer.
        cached_input: of the part of a prompt that the server had in its cache.
        batch: the share of these prices that a batch endpoint takes.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal
    batch: Decimal = _HALF

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Prices:
        """The prices in a mapping; `cached_input` is as `input` and `batch` a half by default.

        Raises:
            EngineError: a price that is missing, unknown or no number from 0 up.
        """
        unknown = given.keys() - {"input", "output", "cached_input", "batch"}
        if unknown:
            raise EngineError(
                "no such price", key=f"prices.{min(map(str, unknown))}",
                mend="give input, output and, where they differ, cached_input and batch",
            )  # fmt: skip
        values = {key: amount(f"prices.{key}", value) for key, value in given.items()}
        for key in ("input", "output"):
            if key not in values:
                raise EngineError("is missing", key=f"prices.{key}", mend="per million tokens")
        return cls(**{"cached_input": values["input"], **values})

    def cost(self, prompt: int, cached: int, output: int, *, batch: bool = False) -> Decimal:
        """The cost of a request.

        Args:
            prompt: tokens of the prompt, cached ones among them.
            cached: tokens of it that came from the cache.
            output: tokens of the answer.
            batch: it went through a batch endpoint.
        """
        fresh = max(0, prompt - cached)
        whole = fresh * self.input + cached * self.cached_input + output * self.output
        return whole * (self.batch if batch else 1) / _MILLION

    def most(self, prompt: int, output: int, *, batch: bool = False) -> Decimal:
        """The most that a request of at most so many tokens can cost."""
        cached = prompt if self.cached_input > self.input else 0
        return self.cost(prompt, cached, output, batch=batch)


FREE = Prices(Decimal(0), Decimal(0), Decimal(0))


def amount(key: str, value: Any) -> Decimal:
    """An amount of money as given in a recipe.

    Raises:
        EngineError: no number from 0 up.
    """
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if isinstance(value, bool) or not number.is_finite() or number < 0:
        raise EngineError("is no amount of money", key=key, value=value, mend="a number from 0 up")
    return number


class Spending:
    """The money that one model at one server has cost, over all processes of a run.

    Used from one event loop alone.

    Args:
        kept: where the sum is kept.
        name: of the object there.
        prices: None counts no money.
        cap: the most that may be spent; None is no cap.

    Attributes:
        before: is told before each request what it and those under way may cost together, beyond
            what is spent; what it raises keeps the request from being sent.

    Raises:
        EngineError: a cap without prices.
    """

    def __init__(
        self, kept: Kept, name: str, prices: Prices | None = None, cap: Decimal | None = None
    ) -> None:
        if cap is not None and prices is None:
            raise EngineError(
                "cannot be kept to without prices", key="max_spend", value=float(cap),
                mend="give prices: {input: …, output: …} per million tokens",
            )  # fmt: skip
        self.prices, self.cap = prices or FREE, cap
        self.before: Callable[[float], None] | None = None
        self._kept, self._name = kept, name
        held = kept.read(name) or {}
        self._single = Decimal(held.get("spent", "0"))
        self._batches = {k: Decimal(v) for k, v in held.get("batches", {}).items()}
        self.requests = int(held.get("requests", 0))
        self._reserved = Decimal(0)
        self._written = self.spent
        self._settled = asyncio.Event()

    @property
    def spent(self) -> Decimal:
        """What is spent so far, in the prices' currency; batches that are under way at the most."""
        return self._single + sum(self._batches.values(), Decimal(0))

    async def reserve(self, most: Decimal) -> None:
        """Set aside what a request may cost; waits for others to settle where they hold too much.

        Raises:
            EngineError: the cap would be passed whatever the others turn out to cost.
            RlaifError: what `before` raises, whatever the others turn out to cost.
        """
        while (refusal := self._refusal(most)) is not None:
            if not self._reserved:
                raise refusal
            self._settled.clear()
            await self._settled.wait()
        self._reserved += most
        self._write_ahead()

    def settle(self, most: Decimal, cost: Decimal) -> None:
        """Give back a reservation, and count what the request has cost in its place."""
        self._reserved -= most
        self._single += cost
        self.requests += 1
        self._settled.set()

    def reserve_batch(self, name: str, most: Decimal) -> None:
        """Count a batch at its most, before it is submitted; twice told is counted once.

        Raises:
            EngineError: the cap would be passed.
            RlaifError: what `before` raises.
        """
        refusal = self._refusal(most - self._batches.get(name, Decimal(0)))
        if refusal is not None:
            raise refusal
        self.settle_batch(name, most)

    def settle_batch(self, name: str, cost: Decimal) -> None:
        """Count what a batch has cost, in place of what it might."""
        self._batches[name] = cost
        self.flush()

    def flush(self) -> None:
        """Write what is spent and reserved."""
        if self.prices is not FREE:
            self._write(self._reserved)

    def _refusal(self, more: Decimal) -> RlaifError | None:
        """Why so much more may not be spent; None where it may."""
        ahead = self._reserved + more
        if self.cap is not None and self.spent + ahead > self.cap:
            return self._stopped(more)
        try:
            if self.before is not None and more:
                self.before(float(ahead))
        except RlaifError as refusal:
            return refusal
        return None

    def _write_ahead(self) -> None:
        if self.cap is not None and self.spent + self._reserved > self._written:
            room = self.cap - self.spent - self._reserved
            self._write(self._reserved + min(room, self.cap / _STEPS))

    def _write(self, ahead: Decimal) -> None:
        self._written = self.spent + ahead
        values = {
            "spent": str(self._single + ahead),
            "batches": {k: str(v) for k, v in self._batches.items()},
            "requests": self.requests,
        }
        self._kept.write(self._name, values)

    def _stopped(self, most: Decimal) -> EngineError:
        return EngineError(
            f"the cap is reached: {self.spent:.6g} spent in {self.requests} requests, and the next "
            f"may cost {most:.6g}",
            key="max_spend",
            value=float(self.cap or 0),
            mend="raise it and start again: every finished shard is kept",
        )
