"""An event loop in a thread of its own, so that asynchronous work can be called like a function.

It works where a loop is running already (a notebook) and from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 5.0  # seconds for cancelled work to end


class LoopThread:
    """Runs coroutines; the thread starts with the first of them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns or raises. Ctrl-C cancels it, and waits until it has ended."""
        ended = Event()

        async def watched() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(watched(), self._started())
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(_PATIENCE)
            raise

    def close(self) -> None:
        """Stop the thread; work that still runs is cancelled."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = self._thread = None
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = Thread(target=self._loop.run_forever, name="rlaif-openai", daemon=True)
            self._thread.start()
        return self._loop


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
