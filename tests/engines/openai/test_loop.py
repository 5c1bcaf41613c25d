from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlaif.engines.openai.loop import LoopThread
from tests.engines.openai.misbehaving_server import Asked, Fault, Late, MisbehavingServer

CHILD = """
import sys
from pathlib import Path
from rlaif.engines.openai import OpenAIEngine
from rlaif.engines.protocol import Sampling
from rlaif.records import Message
engine = OpenAIEngine("m", sys.argv[1], labels="top_logprobs", state=Path(sys.argv[2]),
                      prices={"input": 1000000, "output": 0}, max_spend=100000)
engine.generate([(Message("user", f"p{i}"),) for i in range(20)], Sampling(), [0] * 20)
"""


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def test_it_works_where_a_loop_is_running_and_from_any_thread() -> None:
    loop = LoopThread()

    async def notebook() -> int:
        return loop.run(double(2))

    assert asyncio.run(notebook()) == 4
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(loop.run(double(i)))) for i in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [2, 4]
    loop.close()


def test_what_the_work_raises_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("on purpose")

    loop = LoopThread()
    with pytest.raises(ValueError, match="on purpose"):
        loop.run(fail())
    assert loop.run(double(1)) == 2
    loop.close()
    loop.close()


def test_ctrl_c_cancels_the_work_and_waits_for_its_end() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.append("in order")

    loop = LoopThread()
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    assert ended == ["in order"]
    assert loop.run(double(1)) == 2
    loop.close()


def test_ctrl_c_ends_a_run_at_once_and_what_was_in_flight_counts_as_spent(tmp_path: Path) -> None:
    def hang(asked: Asked) -> Fault:
        return Late(60) if asked.text.startswith("p") else None

    with MisbehavingServer(hang) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, server.base_url, str(tmp_path)],
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        until = time.monotonic() + 60
        while server.most_in_flight < 20 and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert said.decode().strip().endswith("KeyboardInterrupt")
    [file] = tmp_path.glob("spend-*.json")
    assert float(json.loads(file.read_text())["spent"]) > 20 * len("p0")
