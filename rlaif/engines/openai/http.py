"""One try of one request: bounded in time, paid for, and read as JSON or refused.

The official client retries by itself. What stands here is below its retries: a try that takes too
long, or whose answer is cut, empty or no JSON, is one more failed try to it, with back-off.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2

from rlaif.engines.openai.spending import Spending

_CONNECT = 10.0  # seconds
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Request:
    """A question to a server.

    Attributes:
        path: of the endpoint, behind the base address.
        body: what is sent, as JSON.
        prompt_tokens: the prompt has at most so many.
        output_tokens: all its answers together have at most so many.
    """

    path: str
    body: Mapping[str, Any]
    prompt_tokens: int
    output_tokens: int

    def most(self, spending: Spending, *, batch: bool = False) -> Decimal:
        """The most that it can cost."""
        return spending.prices.most(self.prompt_tokens, self.output_tokens, batch=batch)


CURRENT: ContextVar[Request | None] = ContextVar("CURRENT", default=None)
"""The request that this task is about; None where no money is at stake."""


class Transport(httpx2.AsyncClient):
    """Sends one try of a request.

    Args:
        host: of the server; a proxy is never used to reach this machine itself.
        connections: at most so many at once.
        spending: pays for the requests that `CURRENT` names.
    """

    def __init__(self, host: str, connections: int, spending: Spending) -> None:
        # Redirects are not followed: prompts and keys go to the address that was given.
        super().__init__(
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            ),
            trust_env=not _is_this_machine(host),
            follow_redirects=False,
        )
        self._spending = spending

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The whole response to one try.

        Raises:
            EngineError: the cap on spending would be passed.
            httpx2.TransportError: no usable answer came; the client tries again.
        """
        asked = CURRENT.get()
        if asked is None:
            return await self._in_time(request, **options)
        most = asked.most(self._spending)
        await self._spending.reserve(most)
        cost = most  # whoever was sent a request may have billed it, whatever became of it
        try:
            response = await self._in_time(request, **options)
            if response.is_success:
                cost = self._cost(_answer(response), most)
            elif response.status_code < 500:
                cost = Decimal(0)
        except _UNSENT:
            cost = Decimal(0)
            raise
        finally:
            self._spending.settle(most, cost)
        return response

    async def _in_time(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Bounded as a whole: a server that sends a byte now and then does not hang a run."""
        seconds = request.extensions["timeout"]["read"]
        request.extensions["timeout"]["connect"] = min(_CONNECT, seconds)
        try:
            async with asyncio.timeout(seconds):
                return await super().send(request, **options)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("took too long", request=request) from error

    def _cost(self, answer: Mapping[str, Any], most: Decimal) -> Decimal:
        used = tokens_used(answer)
        return most if used is None else self._spending.prices.cost(*used)


def tokens_used(answer: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Tokens of the prompt, those of it that were cached, tokens of the answer; None if untold."""
    usage = answer.get("usage")
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    counts = (usage.get("prompt_tokens"), cached or 0, usage.get("completion_tokens"))
    prompt, cached, output = (x if type(x) is int and x >= 0 else None for x in counts)
    if prompt is None or output is None:
        return None
    return prompt, min(cached or 0, prompt), output


def is_completion(answer: object) -> bool:
    """It has at least one choice."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    return isinstance(choices, list) and bool(choices) and all(isinstance(c, dict) for c in choices)


def _answer(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        answer = None
    if is_completion(answer):
        return answer  # type: ignore[no-any-return]
    kind = response.headers.get("content-type", "no content type")
    raise httpx2.RemoteProtocolError(f"the answer is no completion but {kind}: {response.text}")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
