from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.constitution import Principle
from rlaif.engines.scripted import ScriptedEngine
from rlaif.label.judge import judge
from rlaif.label.method import missing, principle_fingerprint
from rlaif.records import Record, Verdict, sigmoid
from tests.label.scripted_judges import (
    data_of,
    make_constitution,
    make_method,
    make_record,
    pairwise_judge,
    pointwise_judge,
)

BRIEF, KIND = make_constitution("Be brief.", "Be kind.").principles
POINTWISE, PAIRWISE = make_method(), make_method("pairwise")


def yes_to(*texts: str) -> ScriptedEngine:
    return pointwise_judge(lambda response, _: [0.8, 0.1] if response in texts else [0.1, 0.8])


def verdicts_of(record: Record, principle: Principle) -> dict[tuple[int, int | None], Verdict]:
    return {
        (v.response, v.other): v for v in record.verdicts if v.principle == principle.fingerprint
    }


def questions(engine: ScriptedEngine) -> list[tuple[str, ...]]:
    return [data_of(chat) for _, chats in engine.calls for chat in chats]


def test_each_response_is_judged_under_each_principle() -> None:
    engine = pointwise_judge(
        lambda response, principle: [0.8, 0.1] if (response, principle[3]) == ("a", "b") else [0, 1]
    )
    [record] = judge([make_record("a", "b")], engine, [BRIEF, KIND], POINTWISE)
    brief, kind = verdicts_of(record, BRIEF), verdicts_of(record, KIND)
    assert brief[0, None].log_odds == pytest.approx(math.log(8))
    assert [brief[1, None].log_odds, kind[0, None].log_odds, kind[1, None].log_odds] == [-100] * 3
    assert brief[0, None].coverage == pytest.approx(0.9)


def test_all_records_and_principles_go_in_one_call_shared_beginnings_together() -> None:
    engine = yes_to("a")
    judge([make_record("a", "b", prompt=p) for p in "xy"], engine, [BRIEF, KIND], POINTWISE)
    assert len(engine.calls) == 1
    beginnings = [question[:2] for question in questions(engine)]
    assert beginnings == [(p, r) for p in "xy" for r in "ab" for _ in range(2)]


def test_equal_texts_are_asked_about_once_and_share_the_verdict() -> None:
    engine = yes_to("a")
    [record] = judge([make_record("a", "b", "a")], engine, [BRIEF], POINTWISE)
    assert len(questions(engine)) == 2
    found = verdicts_of(record, BRIEF)
    assert found[0, None].log_odds == found[2, None].log_odds == pytest.approx(math.log(8))
    assert found[1, None].log_odds == pytest.approx(-math.log(8))


def test_principles_of_equal_text_are_asked_about_once() -> None:
    engine = yes_to("a")
    again = Principle(id="again", text=BRIEF.text, weight=3)
    [record] = judge([make_record("a")], engine, [BRIEF, KIND, again], POINTWISE)
    assert len(questions(engine)) == len(record.verdicts) == 2


def test_an_abstention_keeps_its_reason_and_its_place() -> None:
    engine = pointwise_judge(lambda response, _: None if response == "b" else [0.9, 0.1])
    [record] = judge([make_record("a", "b", "c")], engine, [BRIEF], POINTWISE)
    found = verdicts_of(record, BRIEF)
    assert [found[i, None].log_odds is None for i in range(3)] == [False, True, False]
    assert found[1, None].reason == "the script abstains"


def test_an_edit_of_one_principle_judges_that_one_alone() -> None:
    engine, records = yes_to("a"), [make_record("a", "b")]
    stored: dict[str, tuple[Verdict, ...]] = {}

    def run(*principles: Principle) -> int:
        """As a pipeline does: judge what is not stored, store it by fingerprint."""
        before = engine.usage.requests
        todo = missing(principles, POINTWISE, engine.identity, stored)
        [record] = judge(records, engine, todo, POINTWISE)
        for principle in todo:
            name = principle_fingerprint(principle, POINTWISE, engine.identity)
            stored[name] = tuple(verdicts_of(record, principle).values())
        return engine.usage.requests - before

    assert run(BRIEF, KIND) == 4
    assert run(BRIEF, Principle(id="kind", text="Be very kind.")) == 2
    assert run(Principle(id="short", text=BRIEF.text, weight=5, veto=True), KIND) == 0
    assert {len(verdicts) for verdicts in stored.values()} == {2}


def test_verdicts_under_other_principles_or_of_another_form_stay() -> None:
    record = make_record("a", "b")
    [record] = judge([record], yes_to("a"), [BRIEF, KIND], POINTWISE)
    [record] = judge([record], pairwise_judge(lambda *_: [0.5, 0.4]), [BRIEF], PAIRWISE)
    [record] = judge([record], yes_to("b"), [BRIEF], POINTWISE)
    brief, kind = verdicts_of(record, BRIEF), verdicts_of(record, KIND)
    assert len(record.verdicts) == 5
    assert (brief[0, None].log_odds or 0) < 0 < (kind[0, None].log_odds or 0)
    assert (0, 1) in brief


def test_both_orders_are_asked_of_every_two_texts() -> None:
    engine = pairwise_judge(lambda *_: [0.5, 0.4])
    judge([make_record("a", "b", "c")], engine, [BRIEF], PAIRWISE)
    assert sorted(q[1:3] for q in questions(engine)) == sorted(
        (x, y) for x in "abc" for y in "abc" if x != y
    )


def test_equal_texts_are_compared_once_with_the_others_and_not_with_each_other() -> None:
    engine = pairwise_judge(lambda a, b, _: [0.8, 0.1] if a < b else [0.1, 0.8])
    [record] = judge([make_record("b", "a", "b", "a")], engine, [BRIEF], PAIRWISE)
    assert len(questions(engine)) == 2
    odds = {pair: v.log_odds for pair, v in verdicts_of(record, BRIEF).items()}
    assert odds == {
        (0, 1): pytest.approx(-math.log(8)),
        (0, 3): pytest.approx(-math.log(8)),
        (1, 2): pytest.approx(math.log(8)),
        (2, 3): pytest.approx(-math.log(8)),
    }


def test_the_gap_between_the_orders_is_stored() -> None:
    engine = pairwise_judge(lambda a, *_: [0.8, 0.1] if a == "a" else [0.5, 0.25])
    [record] = judge([make_record("a", "b")], engine, [BRIEF], PAIRWISE)
    verdict = verdicts_of(record, BRIEF)[0, 1]
    assert verdict.log_odds == pytest.approx((math.log(8) - math.log(2)) / 2)
    assert verdict.order_gap == pytest.approx(math.log(8) - -math.log(2))
    assert verdict.coverage == pytest.approx(0.75)


@pytest.mark.parametrize("silent", ["a", "b"])
def test_one_order_without_an_answer_is_an_abstention(silent: str) -> None:
    engine = pairwise_judge(lambda a, *_: None if a == silent else [0.8, 0.1])
    [record] = judge([make_record("a", "b")], engine, [BRIEF], PAIRWISE)
    [verdict] = record.verdicts
    assert (verdict.log_odds, verdict.order_gap) == (None, None)
    assert verdict.reason == "the script abstains"


def test_rationales_of_both_orders_are_kept() -> None:
    engine = ScriptedEngine(lambda chat: f"{data_of(chat)[1]} first", lambda *_: [0.5, 0.4])
    method = make_method("pairwise", reasoning=True)
    [record] = judge([make_record("a", "b")], engine, [BRIEF], method)
    assert record.verdicts[0].rationale == "a first\n\nb first"


def test_nothing_to_judge_asks_nothing() -> None:
    assert judge([], ScriptedEngine(), [BRIEF], POINTWISE) == []
    alone = make_record("a", "a")
    assert judge([alone], ScriptedEngine(), [BRIEF], PAIRWISE) == [alone]
    assert judge([alone], ScriptedEngine(), [], POINTWISE) == [alone]


@settings(deadline=None)
@given(
    truth=st.dictionaries(st.sampled_from("abcd"), st.floats(-5, 5), min_size=2),
    bias=st.floats(-5, 5),
)
def test_a_liking_for_one_place_does_not_move_the_verdict(
    truth: dict[str, float], bias: float
) -> None:
    def compare(lean: float) -> Record:
        def say(a: str, b: str, _: str) -> list[float]:
            p = sigmoid(truth[a] - truth[b] + lean)
            return [0.9 * p, 0.9 * sigmoid(truth[b] - truth[a] - lean)]

        [record] = judge([make_record(*truth)], pairwise_judge(say), [BRIEF], PAIRWISE)
        return record

    for fair, leaning in zip(compare(0).verdicts, compare(bias).verdicts, strict=True):
        assert leaning.log_odds == pytest.approx(fair.log_odds, abs=1e-9)
        assert leaning.order_gap == pytest.approx(2 * bias, abs=1e-9)
