"""The cap on spending, held by the engine against a server that keeps its own accounts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from rlaif.engines.openai import OpenAIEngine
from rlaif.engines.protocol import NO, YES, Sampling
from rlaif.errors import EngineError
from rlaif.records import Message
from tests.engines.openai.misbehaving_server import (
    Asked,
    Cut,
    Fault,
    Late,
    MisbehavingServer,
    Status,
)
from tests.tiny_models import tiny_tokenizer

PRICES = {"input": 1_000_000, "output": 2_000_000}  # 1 and 2 a token
CHATS = [(Message("user", f"p{i} and more"),) for i in range(60)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.002)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield


def engine(server: MisbehavingServer, state: Path, **options: Any) -> OpenAIEngine:
    options = {"prices": PRICES, "labels": "top_logprobs", "max_retries": 6, **options}
    return OpenAIEngine("m", server.base_url, state=state, **options)


def bill(server: MisbehavingServer) -> int:
    return server.billed_prompt + 2 * server.billed_output


def test_what_the_server_bills_is_what_is_counted(tmp_path: Path) -> None:
    with MisbehavingServer() as server, closing(engine(server, tmp_path)) as e:
        e.generate(CHATS, Sampling(n=2), [0] * 60)
        e.score_labels(CHATS, [YES, NO])
        assert e.spent == bill(server)


def test_the_cap_is_never_passed_over_restarts_and_failures(tmp_path: Path) -> None:
    dice = random.Random(1)
    cap = 60_000

    def trouble(asked: Asked) -> Fault:
        faults = [Cut(after=9), Status(500), Status(429), Late(0.002), None, None, None, None]
        return dice.choice(faults) if asked.text.startswith("p") else None

    stopped = 0
    with MisbehavingServer(trouble) as server:
        for run in range(12):
            with closing(engine(server, tmp_path, max_spend=cap, concurrency=8)) as e:
                try:
                    e.generate(CHATS, Sampling(max_tokens=99), [run] * 60)
                except EngineError as error:
                    assert "max_spend: the cap is reached" in str(error)
                    stopped += 1
                assert bill(server) <= e.spent <= cap
    assert stopped >= 2, "once it is reached, it stays reached"


def test_it_stops_only_when_the_next_request_may_pass_it(tmp_path: Path) -> None:
    with MisbehavingServer() as server:
        with (
            closing(engine(server, tmp_path, max_spend=1400, concurrency=16)) as e,
            pytest.raises(EngineError, match="raise it and start again") as told,
        ):
            e.generate(CHATS, Sampling(max_tokens=20), [0] * 60)
        assert 1400 - 500 <= bill(server) <= 1400
    assert "spent in" in str(told.value)


def test_the_same_model_at_another_server_has_a_purse_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        with MisbehavingServer() as server, closing(engine(server, tmp_path, max_spend=5000)) as e:
            assert all(s.logprobs for s in e.score_labels(CHATS, [YES, NO]))


def test_with_a_tokenizer_the_most_is_exact(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    # A prompt has some 20 tokens, but hundreds of bytes in its JSON.
    options = {"tokenizer": str(tmp_path / "tokenizer"), "max_spend": 400}
    with MisbehavingServer() as server, closing(engine(server, tmp_path, **options)) as e:
        assert e.score_labels(CHATS[:1], [YES, NO])[0].logprobs


def test_without_a_state_folder_the_spend_lasts_as_long_as_the_engine() -> None:
    with MisbehavingServer() as server:
        e = OpenAIEngine("m", server.base_url, prices=PRICES, labels="top_logprobs")
        e.score_labels(CHATS, [YES, NO])
        assert e.spent > 0
        e.close()
