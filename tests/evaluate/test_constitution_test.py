from __future__ import annotations

import io

import pytest
from rich.console import Console

from rlaif.constitution import Constitution, Example, Principle
from rlaif.engines.scripted import Masses, ScriptedEngine
from rlaif.evaluate.constitution_test import ExampleScore, Pull, judge_examples, print_test
from rlaif.label.method import Mode
from rlaif.records import sigmoid
from tests.label.scripted_judges import make_method, pairwise_judge, pointwise_judge


def principle(name: str, *prompts: str) -> Principle:
    found = tuple(Example(prompt=p, better=f"{p} good", worse=f"{p} bad") for p in prompts)
    return Principle(id=name, text=f"Be {name}.", examples=found)


WARM = principle("warm", "a", "b", "c")
BRIEF = principle("brief", "d", "e")
BOTH = Constitution(name="test", principles=(WARM, BRIEF, principle("true")))


def odds(x: float) -> list[float]:
    return [0.98 * sigmoid(x), 0.98 * sigmoid(-x)]


def keeps(text: str, rule: str) -> float:
    """Good responses keep every principle, by 2 nats, and bad ones break it."""
    return 2.0 if text.endswith("good") else -2.0


def judged(
    engine: ScriptedEngine, mode: Mode = "pointwise", **how: float
) -> tuple[list[ExampleScore], list[Pull]]:
    return judge_examples(BOTH, engine, make_method(mode), clip=0.01, **how)


def test_each_principle_is_counted_on_its_own_examples() -> None:
    def say(text: str, rule: str) -> Masses:
        turned = rule == "Be warm." and text.startswith("b")
        return odds(keeps(text, rule) * (-1 if turned else 1))

    tested, pulls = judged(pointwise_judge(say))
    assert [(t.principle, t.right, t.total) for t in tested] == [
        ("warm", 2, 3), ("brief", 2, 2), ("true", 0, 0),
    ]  # fmt: skip
    assert tested[0].wrong == ("b",)
    assert pulls == []


def test_a_judge_that_takes_what_stands_first_passes_no_test() -> None:
    tested, _ = judged(pairwise_judge(lambda *_: odds(3.0)), "pairwise")
    assert [(t.right, t.undecided, t.reasons) for t in tested[:2]] == [
        (0, 3, ("tie",)), (0, 2, ("tie",)),
    ]  # fmt: skip


def test_what_the_judge_cannot_tell_is_not_right_and_says_why() -> None:
    engine = pointwise_judge(lambda text, rule: None if text[0] == "d" else odds(keeps(text, rule)))
    tested, _ = judged(engine)
    assert (tested[1].right, tested[1].undecided, tested[1].wrong) == (1, 1, ())
    assert tested[1].reasons == ("the script abstains",)
    assert not tested[1].passes(0.6)
    assert tested[1].passes(0.5)


def test_a_principle_without_examples_is_not_tested() -> None:
    tested, _ = judged(pointwise_judge(lambda text, rule: odds(keeps(text, rule))))
    assert tested[2].passes(1.0)


@pytest.mark.parametrize("mode", ["pointwise", "pairwise"])
def test_principles_that_pull_against_each_other_are_told_with_the_widest_loss(mode: Mode) -> None:
    """The better response of b and c is the worse one under brief, by 4 and by 6 nats."""
    against = {"b": -1.0, "c": -1.5}

    def lean(text: str, rule: str) -> float:
        return keeps(text, rule) * (against.get(text[0], 1.0) if rule == "Be brief." else 1.0)

    engine = pointwise_judge(lambda text, rule: odds(lean(text, rule)))
    if mode == "pairwise":
        engine = pairwise_judge(lambda a, b, rule: odds(lean(a, rule) - lean(b, rule)))
    tested, pulls = judged(engine, mode)
    assert pulls == [
        Pull(
            "warm", "brief", 2, 3, pytest.approx(6.0 if mode == "pointwise" else 4.6, abs=0.01), "c"
        )
    ]
    assert [t.right for t in tested] == [3, 2, 0]
    assert judged(engine, mode, clear=7.0)[1] == []


def test_a_slight_loss_under_another_principle_is_no_pull() -> None:
    engine = pointwise_judge(
        lambda text, rule: odds(keeps(text, rule) * (-0.4 if rule == "Be brief." else 1))
    )
    assert judged(engine)[1] == []


def test_a_share_that_is_just_reached_passes() -> None:
    assert ExampleScore("warm", 11, 0, 20, (), ()).passes(0.55)  # 0.55 * 20 is a little over 11


def test_all_is_asked_in_one_call() -> None:
    engine = pointwise_judge(lambda text, rule: odds(keeps(text, rule)))
    judged(engine)
    assert [(what, len(chats)) for what, chats in engine.calls] == [("score_labels", 5 * 3 * 2)]


def test_what_is_printed_names_what_fails() -> None:
    tested = [
        ExampleScore("warm", 1, 1, 3, ("a" * 99,), ("tie",)),
        ExampleScore("true", 0, 0, 0, (), ()),
    ]
    out = io.StringIO()
    pulls = [Pull("warm", "brief", 1, 3, 3.21, "Why?")]
    print_test(tested, pulls, 0.8, Console(file=out, width=140))
    said = out.getvalue()
    for part in (
        "1/3",
        "TOO FEW",
        "1 undecided: tie",
        "a" * 59 + "…",
        "no examples",
        "3.2",
        "Why?",
    ):
        assert part in said
