from __future__ import annotations

from functools import partial

from rlaif.engines.protocol import Engine
from rlaif.engines.scripted import ScriptedEngine
from rlaif.filters.spent import Metered, Spent, answered, length_in_words
from rlaif.filters.vote import vote
from rlaif.filters.ways import both_orders, chat, once
from rlaif.records import Message
from tests.filters.questions import masses, question
from tests.label.scripted_judges import make_method

PAIRWISE, REASONED = make_method("pairwise"), make_method("pointwise", reasoning=True)


def test_every_call_counts_in_full_whatever_an_engine_shares() -> None:
    engine = ScriptedEngine(score=lambda *_: masses(1.0))
    ways = {1: partial(once, method=PAIRWISE), 3: partial(vote, method=PAIRWISE, times=3)}
    asked = question("a b", "c")
    one = length_in_words(chat(asked, PAIRWISE))
    for times, way in ways.items():
        _, spent = answered([asked, asked], way, engine)
        assert spent == Spent(2 * times, 2 * times * one, 0)
    _, spent = answered([asked], partial(both_orders, way=ways[1]), engine)
    assert spent == Spent(2, 2 * one, 0)


def test_reasons_count_when_they_are_written_and_when_they_are_read() -> None:
    engine = ScriptedEngine(lambda _: "It is so.", lambda *_: masses(1.0))
    asked = question("a")
    _, spent = answered([asked], partial(once, method=REASONED), engine)
    one = length_in_words(chat(asked, REASONED))
    assert spent == Spent(2, one + (one + 4), 3)


def test_the_length_is_measured_as_the_user_says() -> None:
    engine = ScriptedEngine(score=lambda *_: masses(1.0))
    way = partial(once, method=PAIRWISE)
    _, spent = answered([question("a", "b")], way, engine, lambda chat: 7)
    assert spent.tokens == 7


def test_an_engine_that_is_metered_is_the_same_engine() -> None:
    inner = ScriptedEngine(score=lambda *_: masses(1.0), name="this one")
    metered = Metered(inner)
    assert isinstance(metered, Engine)
    metered.score_labels([(Message("user", "Is it?"),)], [("yes",), ("no",)])
    assert (metered.identity, metered.usage.requests) == (inner.identity, 1)
    metered.close()
    assert inner.closed
    assert Spent(3, 5, 2) - Spent(1, 2, 1) + Spent() == Spent(2, 3, 1)
