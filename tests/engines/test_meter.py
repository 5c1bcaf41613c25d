from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rlaif.engines import meter
from rlaif.engines.meter import Used
from rlaif.engines.protocol import Engine, Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.records import Message

LABELS = [("yes",), ("no",)]


@pytest.fixture(autouse=True)
def own_meter() -> Iterator[None]:
    """What these tests count is no other test's."""
    before = meter._METER.set(None)
    yield
    meter._METER.reset(before)


def chat(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def scripted() -> ScriptedEngine:
    return ScriptedEngine(lambda _: "a b", lambda *_: [0.5, 0.5])


def test_where_nobody_counts_an_engine_is_itself() -> None:
    engine = scripted()
    assert meter.metered(engine) is engine
    assert meter.used() == Used()


def test_all_engines_count_the_closed_ones_too_and_a_new_start_forgets_them() -> None:
    meter.start()
    engines = [meter.metered(scripted()) for _ in range(2)]
    for engine in engines:
        engine.generate([chat("x")] * 3, Sampling(), [0] * 3)
        engine.close()
    assert meter.used() == Used(requests=6, generated_tokens=12)
    meter.start()
    assert meter.used() == Used()


class Paid(ScriptedEngine):
    """An engine that keeps what it was paid over processes."""

    spent = 2.0


def test_what_a_server_was_paid_before_is_not_counted_again() -> None:
    meter.start()
    engine = Paid()
    meter.metered(engine)
    assert meter.used().money == 0
    engine.spent = 2.5
    assert meter.used().money == 0.5


class Asked(ScriptedEngine):
    """An engine that pays by the request."""

    ask: Callable[[float], None] | None = None

    def before_paying(self, ask: Callable[[float], None]) -> None:
        self.ask = ask


def test_an_engine_that_pays_is_told_whom_to_ask_where_there_is_somebody() -> None:
    paid: list[float] = []
    for told in (None, paid.append):
        meter.start(before_paying=told)
        engine = Asked()
        meter.metered(engine)
        assert engine.ask == told


def test_an_engine_that_asks_is_the_same_engine() -> None:
    asked: list[int] = []
    meter.start(asked.append)
    inner = scripted()
    engine = meter.metered(inner)
    assert isinstance(engine, Engine)
    assert engine.generate([chat("x")], Sampling(max_tokens=5), [0])[0].responses[0].text == "a b"
    assert len(engine.score_labels([chat("x")], LABELS)) == 1
    assert (engine.identity, engine.usage.requests) == (inner.identity, 2)
    assert len(asked) == 2
    engine.close()
    assert inner.closed


def test_what_two_chats_share_is_foreseen_once() -> None:
    asked: list[int] = []
    meter.start(asked.append)
    shared = "a long text that both of them begin with " * 50
    for chats in ([chat(shared + "one")], [chat(shared + "one"), chat(shared + "two")]):
        meter.metered(scripted()).score_labels(chats, LABELS)
    assert asked[0] <= asked[1] < 1.1 * asked[0]


def test_the_longest_answers_are_foreseen_until_shorter_ones_are_seen() -> None:
    asked: list[int] = []
    meter.start(asked.append)
    engine = meter.metered(scripted())
    for _ in range(2):
        engine.generate([chat("x")] * 2, Sampling(n=3, max_tokens=100), [0, 0])
    assert asked[0] >= 600 and 12 <= asked[1] < 100


def test_what_refuses_a_call_keeps_it_from_being_made() -> None:
    def refuse(tokens: int) -> None:
        raise RuntimeError("no")

    meter.start(refuse)
    inner = scripted()
    with pytest.raises(RuntimeError, match="no"):
        meter.metered(inner).score_labels([chat("x")], LABELS)
    assert inner.calls == []
