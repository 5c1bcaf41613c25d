"""Requests to one server, and for each an answer or the reason for having none.

What is wrong with one request (refused, failed after all tries) is its own reason. What concerns
all of them (server down, wrong key, no such model) stops the run with one error: the journal does
the shard again. Where it is not plain which of the two it is, a harmless request of the same form,
the canary, decides.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx2
import openai

from rlaif.engines.openai.failures import Answer, Failures, Refusal
from rlaif.engines.openai.http import CURRENT, Request, Transport
from rlaif.engines.openai.spending import Spending
from rlaif.errors import EngineError

_PATIENCE = 16  # failures in a row, before the canary is asked
_ROUNDS = 3  # of all retries, that nobody gets through, before the server is given up
_FOR_ALL = {301, 302, 303, 307, 308, 401, 402, 404, 405}
_DOUBTFUL = {None, 403}


class Client:
    """The official asynchronous client, bounded, and with failures told apart.

    Args:
        base_url: of the server, up to and with ``/v1``.
        model: the name that it serves.
        api_key_env: the environment variable with the key; a server may need none.
        concurrency: at most so many requests are in flight.
        max_retries: of each request, with back-off; what the server says of it is heeded.
        timeout: seconds that one try may take, from its first byte to its last.
        spending: pays.

    Raises:
        EngineError: an address that is none, or that holds credentials.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str,
        concurrency: int,
        max_retries: int,
        timeout: float,
        spending: Spending,
    ) -> None:
        self.address = _address(base_url)
        key = os.environ.get(api_key_env, "")
        self.model = model
        self.failures = Failures(str(self.address), model, api_key_env, key)
        self._concurrency, self.spending = concurrency, spending
        self.openai = openai.AsyncOpenAI(
            base_url=str(self.address),
            api_key=key or "none",
            max_retries=max_retries,
            timeout=timeout,
            http_client=Transport(self.address.host, concurrency, spending),
        )
        self._answered = self._failed_in_a_row = 0
        self._canary = asyncio.Lock()

    async def ask(
        self, requests: Sequence[Request], canary: Request, keep: Callable[[int, Answer], None]
    ) -> None:
        """Ask all, in order; `keep` is told each one's answer, once, in the order they come.

        Raises:
            EngineError: what concerns all requests. Those in flight are given up.
        """
        waiting = iter(enumerate(requests))
        refused: list[Refusal] = []

        async def worker() -> None:
            for i, request in waiting:
                answer = await self._ask(request, canary)
                if isinstance(answer, Refusal) and not answer.own:
                    refused.append(answer)
                keep(i, answer)

        await _together(worker, min(self._concurrency, len(requests)))
        if refused and self._failed_in_a_row:  # and nobody was answered since
            await self._decide(canary, refused[-1], self._answered)

    async def one(self, request: Request) -> Answer:
        """One answer, or a refusal by the server.

        Raises:
            EngineError: what concerns all requests.
        """
        answer = await self._admitted(request)
        if isinstance(answer, Refusal) and answer.status is None:
            raise self.failures.for_all(answer)
        return answer

    async def models(self) -> list[Mapping[str, Any]]:
        """What the server says it serves; nothing where it does not say.

        Raises:
            EngineError: it cannot be reached, or refuses the key.
        """
        client = self.openai.with_options(max_retries=min(2, self.openai.max_retries))
        try:
            response = await client.get("/models", cast_to=httpx2.Response)
            listed = json.loads(response.content)["data"]
            return [model for model in listed if isinstance(model, dict)]
        except (ValueError, KeyError, TypeError):
            return []
        except openai.APIError as error:
            refusal = self.failures.refusal(error)
            if refusal.status in (None, 401):
                raise self.failures.for_all(refusal) from None
            return []

    def error(self, error: openai.APIError) -> EngineError:
        """One line about a failure that concerns all requests."""
        return self.failures.for_all(self.failures.refusal(error))

    async def close(self) -> None:
        """Close all connections."""
        await self.openai.close()

    async def _ask(self, request: Request, canary: Request) -> Answer:
        before = self._answered
        answer = await self._admitted(request)
        if not isinstance(answer, Refusal):
            self._answered += 1
            self._failed_in_a_row = 0
        elif not answer.own:
            self._failed_in_a_row += 1
            if answer.status in _DOUBTFUL or self._failed_in_a_row >= _PATIENCE:
                await self._decide(canary, answer, before)
        return answer

    async def _admitted(self, request: Request) -> Answer:
        """An answer, or a refusal that may be this request's own fault.

        A server that is too busy after all retries is asked again while others get through.
        """
        idle = 0
        while True:
            before = self._answered
            answer = await self._attempt(request)
            if isinstance(answer, Refusal) and answer.status in _FOR_ALL:
                raise await self._unserved(answer)
            if not isinstance(answer, Refusal) or answer.status != 429:
                return answer
            idle = idle + 1 if self._answered == before else 0
            if idle == _ROUNDS:
                raise self.failures.for_all(answer)

    async def _decide(self, canary: Request, refusal: Refusal, before: int) -> None:
        """Is it the request, or the server?

        Raises:
            EngineError: the server.
        """
        async with self._canary:
            if self._answered > before and self._failed_in_a_row < _PATIENCE:
                return
            if isinstance(await self._attempt(canary), Refusal):
                raise self.failures.for_all(refusal)
            self._answered += 1
            self._failed_in_a_row = 0

    async def _attempt(self, request: Request) -> Answer:
        CURRENT.set(request)
        try:
            response = await self.openai.post(
                request.path, cast_to=httpx2.Response, body=request.body
            )
            answer: Mapping[str, Any] = json.loads(response.content)
            return answer
        except openai.APIError as error:
            return self.failures.refusal(error)
        finally:
            CURRENT.set(None)

    async def _unserved(self, refusal: Refusal) -> EngineError:
        """The error, with what is served where it is not this model."""
        if refusal.status == 404:
            served = [str(model.get("id")) for model in await self.models()]
            if served and self.model not in served:
                return self.failures.not_served(served)
        return self.failures.for_all(refusal)


async def _together(worker: Callable[[], Awaitable[None]], count: int) -> None:
    """Run so many at once; the first error ends the others and is raised alone."""
    tasks = [asyncio.ensure_future(worker()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _address(base_url: str) -> httpx2.URL:
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, TypeError):
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise EngineError(
            "is no address of a server", key="base_url", mend="for example http://127.0.0.1:8000/v1"
        )
    if url.userinfo or url.query or url.fragment:
        raise EngineError(
            "may hold no credentials, query or fragment: it is written into the run folder",
            key="base_url",
            mend="take them out, and put the key into the environment variable of api_key_env",
        )
    return url
