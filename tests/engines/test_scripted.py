from __future__ import annotations

import math

import pytest

from rlaif.engines.protocol import NO, YES, Engine, Generation, LabelScore, Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import EngineError
from rlaif.records import Message, Response

A, B = (Message("user", "a"),), (Message("user", "b"),)
TWO = Sampling(n=2)


def texts(generations: list[Generation]) -> list[list[str]]:
    return [[r.text for r in g.responses] for g in generations]


def test_it_is_an_engine() -> None:
    assert isinstance(ScriptedEngine(), Engine)


def test_a_function_answers_each_chat() -> None:
    engine = ScriptedEngine(lambda chat: chat[-1].text.upper())
    assert texts(engine.generate([A, B], TWO, [0, 0])) == [["A", "A"], ["B", "B"]]


def test_a_mapping_answers_by_the_last_message() -> None:
    engine = ScriptedEngine({"a": ["one", "two"]})
    known, unknown = engine.generate([A, B], TWO, [0, 0])
    assert [r.text for r in known.responses] == ["one", "two"]
    assert unknown.responses == () and unknown.reason


def test_a_list_answers_in_turn_over_all_calls() -> None:
    engine = ScriptedEngine(["x", None, "z"])
    said = [engine.generate([A], Sampling(), [0])[0] for _ in range(4)]
    assert [g.responses[0].text if g.responses else None for g in said] == ["x", None, "z", "x"]


def test_a_finished_generation_is_passed_on() -> None:
    cut = Generation((Response("x", 9, "length"),))
    assert ScriptedEngine(lambda _: cut).generate([A], Sampling(), [0]) == [cut]


def test_scores_are_masses_in_order_or_by_name() -> None:
    in_order = ScriptedEngine(score=lambda *_: [0.6, 0.0])
    [score] = in_order.score_labels([A], [YES, NO])
    assert score.logprobs == (math.log(0.6), -math.inf)
    assert score.coverage == pytest.approx(0.6)
    by_name = ScriptedEngine(score=lambda *_: {"no": 0.3})
    assert by_name.score_labels([A], [YES, NO])[0].logprobs == (-math.inf, math.log(0.3))


def test_none_is_an_abstention() -> None:
    [score] = ScriptedEngine(score=lambda *_: None).score_labels([A], [YES, NO])
    assert score == LabelScore(None, "the script abstains")


def test_what_the_script_raises_is_passed_on() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        ScriptedEngine(fail).generate([A], Sampling(), [0])
    with pytest.raises(RuntimeError, match="on purpose"):
        ScriptedEngine(score=fail).score_labels([A], [YES])


def test_a_script_without_that_part_says_which() -> None:
    with pytest.raises(EngineError, match="generate="):
        ScriptedEngine().generate([A], Sampling(), [0])
    with pytest.raises(EngineError, match="score="):
        ScriptedEngine().score_labels([A], [YES])


def test_calls_and_usage_are_counted() -> None:
    engine = ScriptedEngine(["one two"], lambda *_: [1.0])
    engine.generate([A, B], Sampling(), [0, 0])
    engine.score_labels([A], [YES])
    assert engine.calls == [("generate", (A, B)), ("score_labels", (A,))]
    assert engine.usage.requests == 3
    assert engine.usage.generated_tokens == 4


def test_another_name_is_another_model() -> None:
    assert ScriptedEngine(name="x").identity != ScriptedEngine().identity
