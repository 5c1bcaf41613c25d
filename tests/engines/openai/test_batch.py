from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from rlaif.engines.openai import OpenAIEngine, batch, batch_file
from rlaif.engines.openai.requests import sent_seed
from rlaif.engines.protocol import NO, YES, Generation, Sampling
from rlaif.errors import EngineError
from rlaif.records import Chat, Message
from tests.engines.openai.misbehaving_server import MisbehavingServer, Status, end, output_line

CHATS: list[Chat] = [(Message("user", f"p{i}"),) for i in range(5)]
SEEDS = list(range(5))


class Died(Exception):
    """The process ends here."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def engine(server: MisbehavingServer, state: Path, **options: Any) -> OpenAIEngine:
    options = {"labels": "top_logprobs", "max_retries": 1, **options}
    return OpenAIEngine(
        "m", server.base_url, batch=True, batch_poll=0.005, state=state, timeout=5.0, **options
    )


def sample(server: MisbehavingServer, state: Path, **options: Any) -> list[Generation]:
    with closing(engine(server, state, **options)) as e:
        return e.generate(CHATS, Sampling(), SEEDS)


def lines_of(server: MisbehavingServer, batch: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.files[batch["input_file_id"]].splitlines()]


def texts(made: list[Generation]) -> list[str | None]:
    return [g.responses[0].text if g.responses else None for g in made]


WHOLE = [f"p{i} by {sent_seed(i)} at 0" for i in range(5)]


def test_a_batch_gives_what_single_requests_give(server: MisbehavingServer, tmp_path: Path) -> None:
    assert texts(sample(server, tmp_path)) == WHOLE, "its lines come back in another order"
    with closing(engine(server, tmp_path)) as e:
        scores = e.score_labels(CHATS, [YES, NO])
    assert all(s.logprobs for s in scores) and len(server.batches) == 2
    sent = {line["custom_id"] for line in lines_of(server, server.batches["batch-0"])}
    assert len(sent) == 5


def test_a_run_that_dies_waiting_goes_on_waiting_for_the_same_batch(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    def stay(site: MisbehavingServer, batch: dict[str, Any]) -> None:
        if batch["polls"] > 4:
            site.key = "changed"  # from here on the run is refused: it ends while it waits

    plan, server.batch_plan = server.batch_plan, stay
    with pytest.raises(EngineError, match="401"):
        sample(server, tmp_path)
    server.key, server.batch_plan = None, plan
    assert texts(sample(server, tmp_path)) == WHOLE
    assert list(server.batches) == ["batch-0"], "nothing is paid twice"
    assert texts(sample(server, tmp_path)) == WHOLE and len(server.batches) == 1


def test_a_batch_whose_making_was_not_confirmed_is_found_again(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    server.lose_next_batch = True
    assert texts(sample(server, tmp_path)) == WHOLE
    assert list(server.batches) == ["batch-0"]


def test_a_run_that_dies_before_it_wrote_the_batch_down_finds_it_again(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = batch.Batch._write, 0

    def die(self: batch.Batch) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise Died
        write(self)

    with monkeypatch.context() as patch:
        patch.setattr(batch.Batch, "_write", die)
        with pytest.raises(Died):
            sample(server, tmp_path)
    assert texts(sample(server, tmp_path)) == WHOLE
    assert list(server.batches) == ["batch-0"]


def test_a_run_that_dies_before_the_batch_was_made_makes_it(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(batch.Batch, "_create", die)
        with pytest.raises(Died):
            sample(server, tmp_path)
    assert not server.batches
    assert texts(sample(server, tmp_path)) == WHOLE


def test_what_expired_is_submitted_again_and_nothing_else(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    def expire(site: MisbehavingServer, batch: dict[str, Any]) -> None:
        lines = lines_of(site, batch)
        late = {"code": "batch_expired", "message": "too late"}
        out = [output_line(site, line) for line in lines[:2]]
        errors = [{"custom_id": x["custom_id"], "response": None, "error": late} for x in lines[2:]]
        end(site, batch, "expired", out, errors)

    server.batch_plan = expire
    assert texts(sample(server, tmp_path)) == WHOLE
    assert [len(lines_of(server, b)) for b in server.batches.values()] == [5, 3, 1]


def test_a_batch_that_expires_unanswered_is_an_error_and_then_made_anew(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    plan, server.batch_plan = server.batch_plan, lambda s, b: end(s, b, "expired", [])
    with pytest.raises(EngineError, match=r"was expired.*submitted anew"):
        sample(server, tmp_path)
    server.batch_plan = plan
    assert texts(sample(server, tmp_path)) == WHOLE and len(server.batches) == 2


def test_a_cancelled_batch_is_an_error_and_its_answers_are_kept(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    def cancel(site: MisbehavingServer, batch: dict[str, Any]) -> None:
        end(site, batch, "cancelled", [output_line(site, lines_of(site, batch)[0])])

    plan, server.batch_plan = server.batch_plan, cancel
    with pytest.raises(EngineError, match="batch-0 was cancelled"):
        sample(server, tmp_path)
    server.batch_plan = plan
    assert texts(sample(server, tmp_path)) == WHOLE
    assert [len(lines_of(server, b)) for b in server.batches.values()] == [5, 4]


def test_a_failed_batch_says_why_and_is_made_anew(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    def fail(site: MisbehavingServer, batch: dict[str, Any]) -> None:
        batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "quota is full"}]}
        end(site, batch, "failed", [])

    plan, server.batch_plan = server.batch_plan, fail
    with pytest.raises(EngineError, match="quota is full"):
        sample(server, tmp_path)
    server.batch_plan = plan
    assert texts(sample(server, tmp_path)) == WHOLE


def test_rows_that_failed_or_are_missing_or_garbled_have_reasons(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    def half(site: MisbehavingServer, batch: dict[str, Any]) -> None:
        zero, one, _, three, four = lines_of(site, batch)
        bad = {"status_code": 400, "body": {"error": {"message": "bad words"}}}
        good = output_line(site, three)
        double = good | {"response": {"status_code": 200, "body": {"choices": []}}}
        out = [output_line(site, zero), good, double, {"custom_id": "99"}, ["?"], "?", None]
        out.append({"custom_id": four["custom_id"], "response": {"status_code": 200}})
        end(site, batch, "completed", out, [{"custom_id": one["custom_id"], "response": bad}])

    server.batch_plan = half
    made = sample(server, tmp_path)
    assert texts(made) == [WHOLE[0], None, None, WHOLE[3], None]
    assert "bad words" in str(made[1].reason)
    assert made[2].reason == made[4].reason == "missing from the batch's output"
    assert len(server.batches) == 1


def test_a_batch_that_refuses_everybody_is_an_error_and_no_abstentions(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    def refuse(site: MisbehavingServer, batch: dict[str, Any]) -> None:
        bad = {"status_code": 400, "body": {"error": {"message": "no such field"}}}
        rows = [{"custom_id": x["custom_id"], "response": bad} for x in lines_of(site, batch)]
        end(site, batch, "completed", [], rows)

    plan, server.batch_plan = server.batch_plan, refuse
    with pytest.raises(EngineError, match=r"every request was refused.*no such field"):
        sample(server, tmp_path)
    server.batch_plan = plan
    assert texts(sample(server, tmp_path)) == WHOLE


def test_a_batch_that_the_server_forgot_is_not_paid_again_unasked(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    sample(server, tmp_path)
    server.batches.clear()
    with pytest.raises(EngineError, match=r"does not know batch batch-0; remove .*batch-.*\.json"):
        sample(server, tmp_path)


def test_large_work_goes_in_several_batches(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_file, "_MOST_LINES", 2)
    assert texts(sample(server, tmp_path)) == WHOLE
    assert [len(lines_of(server, b)) for b in server.batches.values()] == [2, 2, 1]


def test_other_requests_are_another_batch(server: MisbehavingServer, tmp_path: Path) -> None:
    sample(server, tmp_path)
    with closing(engine(server, tmp_path)) as e:
        e.generate(CHATS, Sampling(), [s + 1 for s in SEEDS])
    assert len(server.batches) == 2


def test_a_batch_costs_its_share_and_counts_once(server: MisbehavingServer, tmp_path: Path) -> None:
    prices = {"input": 1_000_000, "output": 0}  # 1 a token
    for _ in range(2):
        with closing(engine(server, tmp_path, prices=prices)) as e:
            e.generate(CHATS, Sampling(), SEEDS)
            spent = e.spent
    probes = len("Say yes or no.") * len(server.asked)
    assert spent == pytest.approx(5 * 2 * 0.5 + probes)


def test_a_batch_that_may_pass_the_cap_is_not_submitted(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    prices = {"input": 0, "output": 1_000_000}
    with (
        closing(engine(server, tmp_path, prices=prices, max_spend=600)) as e,
        pytest.raises(EngineError, match="max_spend: the cap is reached"),
    ):
        e.generate(CHATS, Sampling(max_tokens=256), SEEDS)
    assert not server.batches
    with closing(engine(server, tmp_path, prices=prices, max_spend=700)) as e:
        assert texts(e.generate(CHATS, Sampling(max_tokens=256), SEEDS)) == WHOLE


def test_a_server_without_batches_says_so(tmp_path: Path) -> None:
    with MisbehavingServer() as server:
        server._http.RequestHandlerClass._take_file = (  # type: ignore[attr-defined]
            lambda self, data: self._send_status(Status(404, "no such endpoint"))
        )
        with pytest.raises(EngineError, match="404: no such endpoint"):
            sample(server, tmp_path)
