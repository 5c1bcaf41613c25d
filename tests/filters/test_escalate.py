from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from rlaif.engines.protocol import Engine
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import DataError
from rlaif.filters.escalate import (
    Escalated,
    Evidence,
    Step,
    escalate,
    learn,
    threshold_within,
    worth,
)
from rlaif.filters.ways import Question
from rlaif.label.ask import Answer
from rlaif.label.calibrate import Curve
from tests.filters.questions import question

ENGINE = ScriptedEngine()
PLAIN = Curve(way="temperature", slopes=(1.0,), rows=100)
SUM = [Evidence(weights=(1.0,), curve=PLAIN), Evidence(weights=(1.0, 1.0), curve=PLAIN)]


class Told:
    """A way that says what it was told of each response, and remembers what it was asked."""

    def __init__(self, **log_odds: float | None) -> None:
        self.log_odds, self.asked = log_odds, list[str]()

    def __call__(self, questions: Sequence[Question], engine: Engine, /) -> list[Answer]:
        self.asked += [q.response for q in questions]
        said = [self.log_odds[q.response] for q in questions]
        return [Answer(x, 0.9, "busy" if x is None else None) for x in said]


def climb(*ways: Told, threshold: float = 0.9, **more: object) -> dict[str, Escalated]:
    asked = list(ways[0].log_odds)
    steps = [Step(f"step {i}", way) for i, way in enumerate(ways)]
    found = escalate(
        [question(text) for text in asked],
        ENGINE,
        steps=steps,
        learned=SUM[: len(ways)],
        threshold=threshold,
        **more,  # type: ignore[arg-type]
    )
    return dict(zip(asked, found, strict=True))


def test_only_what_is_uncertain_goes_on() -> None:
    second = Told(sure=0.0, unsure=4.0, wrong=0.0)
    found = climb(Told(sure=5.0, unsure=1.0, wrong=-5.0), second)
    assert second.asked == ["unsure"]
    assert {k: len(f.answers) for k, f in found.items()} == {"sure": 1, "unsure": 2, "wrong": 1}


def test_what_was_said_before_still_counts() -> None:
    found = climb(Told(a=1.5, b=-1.5), Told(a=1.0, b=1.0))
    assert [found[k].evidence for k in "ab"] == [2.5, -0.5]
    assert found["a"].confidence == pytest.approx(0.924, abs=1e-3)


def test_an_abstention_adds_nothing_and_sends_the_question_on() -> None:
    found = climb(Told(a=None, b=1.0), Told(a=3.0, b=None))
    assert found["a"].evidence == 3.0
    assert (found["b"].evidence, found["b"].reason) == (1.0, None)


def test_where_nobody_says_anything_there_is_no_label() -> None:
    found = climb(Told(a=None), Told(a=None))["a"]
    assert (found.evidence, found.confidence, found.reason) == (None, None, "busy")
    assert (found.answer.log_odds, found.answer.reason) == (None, "busy")


def test_nobody_is_asked_again_when_all_is_certain() -> None:
    second = Told(a=9.0)
    climb(Told(a=9.0), second)
    assert second.asked == []


def test_as_one_answer_the_log_odds_are_those_of_the_confidence() -> None:
    assert climb(Told(a=-2.0), threshold=0.5)["a"].answer.log_odds == pytest.approx(-2.0)


@pytest.mark.parametrize("found", [Escalated((), 2.0, 0.4), Escalated((), 0.0, 0.8)])
def test_a_label_no_likelier_right_than_wrong_is_none(found: Escalated) -> None:
    assert found.answer.log_odds is None and found.answer.reason


def test_a_number_of_curves_that_is_not_that_of_the_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        escalate([question("a")], ENGINE, steps=[Step("one", Told(a=0.1))], learned=SUM,
                 threshold=0.9)  # fmt: skip


def drawn(n: int, *noise: float, seed: int = 0) -> tuple[list[list[Answer]], list[bool]]:
    """Answers of steps that see ±3 nats, each through noise of its own."""
    rng = random.Random(seed)
    gold = [rng.random() < 0.5 for _ in range(n)]
    said = [[Answer((3.0 if g else -3.0) + rng.gauss(0, s), 1.0) for g in gold] for s in noise]
    return said, gold


def test_a_step_weighs_by_what_it_is_worth() -> None:
    said, gold = drawn(2000, 2.0, 4.0)
    one, two = worth(said, gold).weights
    # The best weights are 2·3/s²: 1.5 and 0.375.
    assert one == pytest.approx(1.5, rel=0.25)
    assert two == pytest.approx(0.375, rel=0.25)


def test_a_step_that_guesses_weighs_nothing() -> None:
    said, gold = drawn(2000, 3.0)
    rng = random.Random(1)
    guesses = [Answer(rng.gauss(0, 3.0), 1.0) for _ in gold]
    one, two = worth([*said, guesses], gold).weights
    assert abs(two) < 0.1 * one


def test_confidence_is_the_share_of_labels_that_are_right() -> None:
    said, gold = drawn(3000, 3.0, 3.0)
    known = worth(said, gold)
    fresh, gold = drawn(3000, 3.0, 3.0, seed=1)
    totals = [known.weigh(answers) or 0.0 for answers in zip(*fresh, strict=True)]
    sure = [(t > 0) == g for t, g in zip(totals, gold, strict=True)
            if 0.9 <= known.curve.confidence(abs(t)) <= 0.97]  # fmt: skip
    assert len(sure) > 200
    assert sum(sure) / len(sure) == pytest.approx(0.94, abs=0.03)


def test_a_judge_with_its_words_turned_round_is_read_the_right_way() -> None:
    said, gold = drawn(500, 2.0)
    turned = [[Answer(-(a.log_odds or 0.0), 1.0) for a in said[0]]]
    known = worth(turned, gold)
    right = [((known.weigh([a]) or 0.0) > 0) == g for a, g in zip(turned[0], gold, strict=True)]
    assert sum(right) / len(right) > 0.9


def test_a_gold_tie_makes_any_label_wrong() -> None:
    said, gold = drawn(1000, 1.0)
    with_ties = [None if i % 2 else g for i, g in enumerate(gold)]
    assert worth(said, gold).curve.confidence(5.0) > 0.95
    assert worth(said, with_ties).curve.confidence(5.0) == pytest.approx(0.5, abs=0.1)


def test_what_a_step_did_not_decide_is_left_out_of_the_fit() -> None:
    said, gold = drawn(400, 2.0)
    silent = [Answer(None, 0.0, "busy")] * 400
    both = worth([[*said[0], *silent]], [*gold, *([True] * 400)])
    assert both == worth(said, gold)


def test_too_few_labels_are_refused() -> None:
    said, gold = drawn(40, 2.0)
    with pytest.raises(DataError, match="at least 50"):
        worth(said, gold)


def test_learning_puts_every_question_through_every_step() -> None:
    said, gold = drawn(100, 2.0, 2.0)
    names = [f"r{i}" for i in range(100)]
    ways = [
        Told(**{n: a.log_odds for n, a in zip(names, answers, strict=True)}) for answers in said
    ]
    steps = [Step("one", ways[0]), Step("two", ways[1])]
    found = learn([question(n) for n in names], gold, ENGINE, steps=steps)
    assert found == [worth(said[:1], gold), worth(said, gold)]
    assert ways[1].asked == names


COSTS = (1.0, 4.0, 10.0)


def ladder() -> tuple[list[list[Answer]], list[Evidence]]:
    said, gold = drawn(400, 6.0, 4.0, 2.0)
    return said, [worth(said[: i + 1], gold) for i in range(3)]


@pytest.mark.parametrize("budget", [1.5, 3.0, 6.0, 12.0])
def test_a_threshold_is_as_high_as_the_budget_allows(budget: float) -> None:
    said, learned = ladder()
    names = [f"r{i}" for i in range(400)]

    def cost(threshold: float) -> float:
        ways = [Told(**{n: a.log_odds for n, a in zip(names, row, strict=True)}) for row in said]
        steps = [Step("", way) for way in ways]
        asked = [question(n) for n in names]
        escalate(asked, ENGINE, steps=steps, learned=learned, threshold=threshold)
        return sum(len(w.asked) * c for w, c in zip(ways, COSTS, strict=True)) / 400

    found = threshold_within(budget, said, learned, COSTS)
    assert budget - 0.1 < cost(found) <= budget < cost(found + 0.01)


def test_a_budget_for_everything_needs_no_threshold() -> None:
    assert threshold_within(15.0, *ladder(), COSTS) == 1.0


def test_a_budget_under_the_first_step_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1"):
        threshold_within(0.9, *ladder(), COSTS)
