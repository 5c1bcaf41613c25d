"""What a response does not surely keep is told, by the first check that it fails."""

from __future__ import annotations

import math

import pytest

from rlaif.engines.scripted import Masses
from rlaif.filters.checks import first_faults
from rlaif.records import Message
from tests.label.scripted_judges import make_constitution, make_method, pointwise_judge

CHECKS = make_constitution("Be true.", "Be supported.").principles
PROMPT = (Message("user", "What is a tide?"),)


def faults(log_odds: dict[str, float | None], checks=CHECKS, *answers: str):
    """The faults of answers, by the critic's log-odds under each principle."""

    def say(response: str, principle: str) -> Masses:
        x = log_odds[principle] if response != "perfect" else 9.0
        return None if x is None else (1 / (1 + math.exp(-x)), 1 / (1 + math.exp(x)))

    judge = pointwise_judge(say)
    asked = [(PROMPT, answer) for answer in answers or ("good",)]
    return first_faults(asked, checks, judge, make_method("pointwise")), judge


@pytest.mark.parametrize(
    ("true", "supported", "fault"),
    [
        (2.0, 2.0, None),
        (2.0, -1.0, ("critic: breaks p1", "log-odds -1.00")),
        (-2.0, -1.0, ("critic: breaks p0", "log-odds -2.00")),
        (2.0, 0.0, ("critic: breaks p1", "log-odds 0.00")),
        (2.0, None, ("critic abstained", "p1: the script abstains")),
    ],
)
def test_the_first_check_that_is_not_surely_kept(true, supported, fault) -> None:
    (found,), _ = faults({"Be true.": true, "Be supported.": supported})
    assert found == fault


def test_each_answer_has_its_own_fault_in_order() -> None:
    broken = {"Be true.": -1.0, "Be supported.": 1.0}
    found, _ = faults(broken, CHECKS, "good", "perfect", "good")
    assert [fault is None for fault in found] == [False, True, False]


def test_without_checks_nothing_is_asked() -> None:
    found, judge = faults({}, (), "good", "bad")
    assert found == [None, None] and not judge.calls


def test_a_check_and_a_veto_of_one_text_have_the_checks_name() -> None:
    veto = CHECKS[0].model_copy(update={"id": "veto"})
    (found,), _ = faults({"Be true.": -1.0, "Be supported.": 1.0}, (*CHECKS, veto))
    assert found == ("critic: breaks p0", "log-odds -1.00")
