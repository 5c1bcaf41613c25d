from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif.engines import meter
from rlaif.engines.load import load_engine
from rlaif.engines.protocol import Engine, Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import BudgetError
from rlaif.loop.spending import Books, Spent, devices, read_cost, total
from rlaif.recipe import Budget, Costs, Model, Recipe
from rlaif.records import Message
from tests.engines.openai.misbehaving_server import MisbehavingServer

CHAT = (Message("user", "write"),)


@pytest.fixture(autouse=True)
def own_meter() -> Iterator[None]:
    """What these tests count is no other test's."""
    before = meter._METER.set(None)
    yield
    meter._METER.reset(before)


def recipe(costs: dict[str, Any] | None = None, **budget: Any) -> Recipe:
    """The two sections that books look at."""
    return Recipe.model_construct(costs=Costs(**costs or {}), budget=Budget(**budget))


def books(file: Path, made: Recipe | None = None, stage: str = "sample") -> Books:
    return Books(file, made or recipe(), 0, 0, stage)


def writer() -> Engine:
    """An engine that writes ten tokens a request, counted."""
    return meter.metered(ScriptedEngine(lambda _: "a b c d e f g h i j"))


def write(engine: Engine, times: int = 1) -> None:
    engine.generate([CHAT] * times, Sampling(max_tokens=10), [0] * times)


def test_what_stages_have_spent_adds_up_over_processes(tmp_path: Path) -> None:
    file = tmp_path / "run" / "cost.jsonl"
    for _ in range(2):
        made, engine = books(file), writer()
        for _ in range(3):
            write(engine)
            made.line()
    found = total(read_cost(file))
    assert (found.requests, found.generated_tokens, found.tokens) == (6, 60, 60)
    assert [line["generated_tokens"] for line in read_cost(file)] == [10] * 6
    assert {(line["round"], line["attempt"], line["stage"]) for line in read_cost(file)} == {
        (0, 0, "sample")
    }


def test_a_line_that_a_kill_cut_off_is_left_out_and_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "cost.jsonl"
    for cut in ('{"round": 0, "generated_tok', ""):
        made, engine = books(file), writer()
        write(engine)
        made.line()
        with file.open("a") as stream:
            stream.write(cut)
    assert [line["generated_tokens"] for line in read_cost(file)] == [10, 10]
    assert len(file.read_text().splitlines()) == 3


def test_nothing_is_spent_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_cost(tmp_path / "cost.jsonl") == []
    assert total([]) == Spent()


def test_time_is_paid_for_on_every_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert devices() == 3
    made = books(tmp_path / "cost.jsonl", recipe({"gpu_hour": 3600.0}))
    made.line()
    found = total(read_cost(tmp_path / "cost.jsonl"))
    assert found.device_seconds == pytest.approx(3 * found.seconds, abs=1e-5)
    assert found.money == pytest.approx(found.device_seconds, abs=1e-5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices() == 1


def test_the_books_pause_before_the_shard_that_would_pass_the_budget(tmp_path: Path) -> None:
    file = tmp_path / "cost.jsonl"
    made = books(file, recipe(tokens=60))
    engine = writer()
    for done in (1, 2):
        write(engine, times=2)
        made.progress("samples", done, 4)
    write(engine)
    with pytest.raises(BudgetError, match=r"budget\.tokens: .*70.*paused before.*got 60"):
        made.progress("samples", 3, 4)
    assert total(read_cost(file)).tokens == 50


def test_the_last_shard_needs_nothing_behind_it(tmp_path: Path) -> None:
    made, engine = books(tmp_path / "cost.jsonl", recipe(tokens=30)), writer()
    write(engine)
    made.progress("samples", 1, 1)


def test_a_call_that_could_pass_the_budget_is_not_made(tmp_path: Path) -> None:
    """The first shard of all, of which nothing is known but its chats."""
    file, scripted = tmp_path / "cost.jsonl", ScriptedEngine(lambda _: "a b c")
    made = books(file, recipe(tokens=100))
    engine = meter.metered(scripted)
    with pytest.raises(BudgetError, match=r"budget\.tokens"):
        engine.generate([CHAT] * 3, Sampling(n=4, max_tokens=10), [0] * 3)
    assert scripted.calls == []
    made.line()
    assert total(read_cost(file)).tokens == 0


def test_what_calls_have_taken_so_far_is_foreseen_of_the_next(tmp_path: Path) -> None:
    """Answers of three tokens, where a thousand were allowed, do not end a run that has room."""
    books(tmp_path / "cost.jsonl", recipe(tokens=1200))
    engine = meter.metered(ScriptedEngine(lambda _: "a b c"))
    for _ in range(100):
        engine.generate([CHAT], Sampling(max_tokens=1000), [0])
    assert meter.used().generated_tokens == 300


def test_a_stage_that_is_started_again_and_again_knows_its_shards_from_before(
    tmp_path: Path,
) -> None:
    file, made = tmp_path / "cost.jsonl", recipe(tokens=115)
    first, engine = books(file, made), writer()
    write(engine, times=6)
    with pytest.raises(BudgetError):
        first.progress("samples", 1, 3)
    for _ in range(3):
        books(file, made)
        engine = writer()
        with pytest.raises(BudgetError):
            write(engine)  # the first of six requests: with all of them it would be 120
    books(file, made, stage="judge")
    write(writer())  # of another stage nothing is known


def test_money_is_never_passed_by_a_call_of_which_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shard of a stage, which is one call: the server's own accounts are the proof."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    file, made = tmp_path / "cost.jsonl", recipe(money=1500.0)
    args: dict[str, Any] = {"prices": {"input": 1_000_000, "output": 2_000_000}, "concurrency": 8}
    chats = [(Message("user", f"p{i} and more"),) for i in range(60)]
    with MisbehavingServer() as server:
        args |= {"base_url": server.base_url, "labels": "top_logprobs"}
        for _ in range(3):
            kept = books(file, made)
            with closing(load_engine(Model(model="m", engine="openai", engine_args=args))) as one:
                with pytest.raises(BudgetError, match=r"budget\.money: .*paused before.*1500"):
                    one.generate(chats, Sampling(max_tokens=20), [0] * 60)
                kept.line()
        bill = server.billed_prompt + 2 * server.billed_output
        assert total(read_cost(file)).money == bill
        assert 1000 < bill <= 1500, "a request may cost some 400, and costs less"


def test_a_clock_that_is_paid_for_ends_a_stage_before_the_time_is_up(tmp_path: Path) -> None:
    file, told = tmp_path / "cost.jsonl", threading.Event()
    errors: list[BudgetError] = []

    def pause(error: BudgetError) -> None:
        errors.append(error)
        made.line()
        told.set()

    cap = 3 * devices() / 3600
    made = books(file, recipe(gpu_hours=cap))
    made.watch(pause)
    assert told.wait(60)
    assert "budget.gpu_hours" in str(errors[0])
    assert total(read_cost(file)).device_seconds > 0


def test_a_clock_is_not_looked_at_where_it_costs_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    for made in (recipe(), recipe(tokens=1), recipe({"gpu_hour": 1.0}), recipe(money=1.0)):
        books(tmp_path / "cost.jsonl", made).watch(lambda _: None)
    assert threading.active_count() == before


def test_a_budget_that_is_spent_lets_no_stage_begin(tmp_path: Path) -> None:
    file = tmp_path / "cost.jsonl"
    file.write_text(json.dumps({"stage": "dpo", "money": 2.5, "device_seconds": 7200}) + "\n")
    for key, cap in (("money", 2.0), ("gpu_hours", 1.0)):
        with pytest.raises(BudgetError, match=rf"budget\.{key}: .*raise it and start again"):
            books(file, recipe(**{key: cap})).hold_to(Spent())
    books(file, recipe(money=3.0, gpu_hours=3.0)).hold_to(Spent())
