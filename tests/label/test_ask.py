from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.engines.protocol import Generation, LabelScore, Sampling
from rlaif.engines.scripted import Masses, ScriptedEngine
from rlaif.label.ask import Answer, ask, log_odds
from rlaif.label.method import Method
from rlaif.records import Message, Response, sigmoid
from tests.label.scripted_judges import make_method

CHAT = (Message("user", ("Keep it? ", "yes")),)
NAN, INF = math.nan, math.inf


def answer(masses: Masses, method: Method | None = None) -> Answer:
    [found] = ask([CHAT], ScriptedEngine(score=lambda *_: masses), method or make_method())
    return found


def test_yes_against_no() -> None:
    assert answer([0.6, 0.2]) == Answer(pytest.approx(math.log(3)), pytest.approx(0.8))


def test_coverage_does_not_move_the_log_odds() -> None:
    assert answer([0.6, 0.2]).log_odds == pytest.approx(answer([0.75, 0.25]).log_odds)


@pytest.mark.parametrize(
    ("masses", "probability"),
    [
        ([0, 0, 0, 0.5, 0.5], 0.875),  # expected rating 4.5
        ([0.2, 0.2, 0.2, 0.2, 0.2], 0.5),
        ([0.05, 0.1, 0.2, 0.25, 0.3], (3.0 + 0.65 / 0.9 - 1) / 4),
    ],
)
def test_rating_is_the_expected_value_over_its_words(
    masses: list[float], probability: float
) -> None:
    found = answer(masses, make_method("rating")).log_odds
    assert found is not None
    assert sigmoid(found) == pytest.approx(probability)


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=5, max_size=5))
def test_rating_agrees_with_its_formula(masses: list[float]) -> None:
    e = sum(k * m for k, m in enumerate(masses, 1)) / sum(masses)
    found = log_odds([math.log(m) for m in masses], "rating")
    assert sigmoid(found) == pytest.approx((e - 1) / 4, abs=1e-9)


@pytest.mark.parametrize("mode", ["pointwise", "rating"])
def test_a_sure_judge_has_finite_log_odds(mode: str) -> None:
    masses = [1.0, 0.0] if mode == "pointwise" else [0, 0, 0, 0, 1.0]
    assert answer(masses, make_method(mode)).log_odds == 100  # type: ignore[arg-type]
    assert answer(masses[::-1], make_method(mode)).log_odds == -100  # type: ignore[arg-type]


def test_little_coverage_is_an_abstention() -> None:
    found = answer([0.1, 0.02])
    assert found == Answer(
        None, pytest.approx(0.12), "little coverage: under 0.5 of the mass on the labels"
    )
    assert answer([0.1, 0.02], make_method(min_coverage=0.1)).log_odds is not None


def test_no_mass_at_all_is_an_abstention_whatever_the_recipe_says() -> None:
    assert answer([0, 0], make_method(min_coverage=0.0)).log_odds is None


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("place", [0, 1])
def test_numbers_that_are_none_are_an_abstention(bad: float, place: int) -> None:
    logprobs = [-0.1, -0.1]
    logprobs[place] = bad
    found = answer(LabelScore(tuple(logprobs)))
    assert (found.log_odds, found.reason) == (None, "probabilities are not numbers")


def test_what_the_engine_could_not_do_is_an_abstention_with_its_reason() -> None:
    found = answer(LabelScore(None, "too long: 9 of 8 tokens"))
    assert found == Answer(None, 0.0, "too long: 9 of 8 tokens")


def test_too_few_labels_are_an_error_not_a_verdict() -> None:
    with pytest.raises(ValueError, match="zip"):
        answer([0.9])


def reasoned(*generations: Generation) -> tuple[list[Answer], ScriptedEngine]:
    engine = ScriptedEngine(generations, lambda *_: [0.6, 0.2])
    chats = [CHAT] * len(generations)
    return ask(chats, engine, make_method(reasoning=True, max_reasoning_tokens=9)), engine


def wrote(text: str, finish: str = "stop") -> Generation:
    return Generation((Response(text, 3, finish),))  # type: ignore[arg-type]


def test_reasons_come_before_the_verdict_and_are_kept() -> None:
    [found], engine = reasoned(wrote("\nIt is short. "))
    assert found == Answer(pytest.approx(math.log(3)), pytest.approx(0.8), None, "It is short.")
    (_, asked), (_, scored) = engine.calls
    assert asked == (CHAT,)
    assert scored == ((*CHAT, Message("assistant", ("It is short.", "\nVerdict:"))),)


def test_reasons_are_greedy_and_end_at_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sampling] = []
    plain = ScriptedEngine.generate

    def generate(self, chats, sampling, seeds):  # type: ignore[no-untyped-def]
        seen.append(sampling)
        return plain(self, chats, sampling, seeds)

    monkeypatch.setattr(ScriptedEngine, "generate", generate)
    reasoned(wrote("Fine."))
    assert seen == [Sampling(n=1, temperature=0.0, max_tokens=9, stop=("Verdict:",))]


def test_reasons_that_do_not_end_are_an_abstention_and_shift_nothing() -> None:
    found, engine = reasoned(
        wrote("a"), wrote("b b b", "length"), Generation((), "too long"), wrote("d")
    )
    assert [a.reason for a in found] == [None, "reasoning did not end", "too long", None]
    assert [a.rationale for a in found] == ["a", None, None, "d"]
    assert len(engine.calls[1][1]) == 2


def test_no_questions_ask_nothing() -> None:
    assert ask([], ScriptedEngine(), make_method()) == []
    assert ask([], ScriptedEngine(), make_method(reasoning=True)) == []


def test_sampled_reasons_need_seeds() -> None:
    with pytest.raises(ValueError, match="needs seeds"):
        ask([CHAT], ScriptedEngine(), make_method(reasoning=True), temperature=1.0)
