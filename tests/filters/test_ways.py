from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from rlaif.constitution import Principle
from rlaif.engines.protocol import Label
from rlaif.engines.scripted import Masses, ScriptedEngine
from rlaif.filters.ways import Question, both_orders, chat, each_alone, mean, once
from rlaif.label.ask import Answer
from rlaif.label.judge import judge
from rlaif.records import Chat
from tests.filters.questions import question, says
from tests.label.scripted_judges import data_of, make_method, make_record

PAIRWISE = partial(once, method=make_method("pairwise"))
POINTWISE = partial(once, method=make_method("pointwise"))
WORTH = {"good": 3.0, "fair": 1.0, "bad": -2.0}


def judge_of(
    place: float = 0.0, worth: dict[str, float | None] = WORTH, **more: object
) -> ScriptedEngine:
    """Knows what each text is worth; likes what is shown as A by `place`."""

    def score(chat: Chat, labels: Sequence[Label]) -> Masses:
        _, *shown, _ = data_of(chat)
        known = [worth[text] for text in shown]
        if any(x is None for x in known):
            return says(None)
        sizes = [x for x in known if x is not None]
        return says(sizes[0] if len(sizes) == 1 else sizes[0] - sizes[1] + place)

    return ScriptedEngine(score=score, **more)  # type: ignore[arg-type]


def log_odds(answers: Sequence[Answer]) -> list[float | None]:
    return [None if a.log_odds is None else round(a.log_odds, 6) for a in answers]


def test_one_call_says_what_the_judge_says_of_the_response_shown_first() -> None:
    asked = [question("good", "bad"), question("bad", "good")]
    assert log_odds(PAIRWISE(asked, judge_of(place=1.0))) == [6.0, -4.0]


def test_both_orders_leave_nothing_of_a_liking_for_the_place() -> None:
    asked = [question("good", "bad"), question("bad", "good")]
    assert log_odds(both_orders(asked, judge_of(place=1.0), way=PAIRWISE)) == [5.0, -5.0]


def test_each_alone_is_the_gap_between_two_verdicts() -> None:
    found = each_alone([question("fair", "bad")], judge_of(), way=POINTWISE)
    assert log_odds(found) == [3.0]


@pytest.mark.parametrize("silent", ["good", "bad"])
def test_where_one_of_two_questions_has_no_answer_there_is_none(silent: str) -> None:
    engine = judge_of(worth=WORTH | {silent: None})
    [found] = each_alone([question("good", "bad")], engine, way=POINTWISE)
    assert (found.log_odds, found.reason) == (None, "busy")


def test_a_question_is_put_as_the_judging_stage_puts_it() -> None:
    record, method = make_record("good", "bad"), make_method("pairwise")
    stage, here = judge_of(), judge_of()
    judge([record], stage, [Principle(id="right", text="Be right.")], method)
    both_orders([question("good", "bad")], here, way=PAIRWISE)
    assert here.calls == stage.calls


def test_a_method_that_does_not_fit_the_number_of_responses_is_refused() -> None:
    for asked, mode in ((question("good"), "pairwise"), (question("good", "bad"), "pointwise")):
        with pytest.raises(ValueError, match=f"a {mode} method"):
            chat(asked, make_method(mode))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be swapped"):
        _ = question("good").swapped


def test_a_mean_leaves_an_abstention_out() -> None:
    found = mean([Answer(2.0, 0.9), Answer(None, 0.1, "busy"), Answer(1.0, 0.8)])
    assert (found.log_odds, found.coverage, found.reason) == (1.5, 0.8, None)


def test_a_mean_of_abstentions_is_one() -> None:
    found = mean([Answer(None, 0.2, "busy"), Answer(None, 0.1, "late")])
    assert (found.log_odds, found.reason) == (None, "busy")


def test_a_question_is_named_by_all_that_is_asked() -> None:
    asked = question("good", "bad")
    others: list[Question] = [
        asked.swapped,
        question("good"),
        question("good", "bad", prompt="What is a moon?"),
        question("good", "bad", principle="Be kind."),
    ]
    assert len({q.id for q in (asked, *others)}) == 5
    assert asked.id == question("good", "bad").id
