"""The sandbox's own measures, each on something whose outcome is known."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Label
from rlaif.engines.scripted import ScriptedEngine
from rlaif.label.method import Method
from rlaif.label.templates import load_template
from rlaif.records import Chat, Message, Record, Response
from rlaif.sandbox import measure, prompts
from rlaif.sandbox.answers import answer, traits
from rlaif.sandbox.forms import verdict
from rlaif.sandbox.principles import read

RULES = Constitution(
    name="test",
    principles=(
        Principle(id="sums", text="Always add numbers correctly.", weight=2),
        Principle(id="greeting", text="The answer should greet the user."),
        Principle(id="unreadable", text="Be excellent."),
    ),
)
METHOD = Method("pointwise", load_template("pointwise"))


def knowing(chat: Chat, labels: Sequence[Label]) -> list[float]:
    """Gold as a judge: reads the question's segments, and knows the answer."""
    _, prompt, _, response, _, principle, _ = chat[0].content
    wish, found = read(principle), traits(prompt, response)
    assert wish is not None and found is not None
    return [0.99, 0.01] if verdict(wish, found) else [0.01, 0.99]


def test_a_judge_that_knows_is_always_right_and_its_opposite_never() -> None:
    right = measure.judge_accuracy(ScriptedEngine(score=knowing), METHOD, 60)
    wrong = measure.judge_accuracy(
        ScriptedEngine(score=lambda *a: knowing(*a)[::-1]), METHOD, 60, held_out=True
    )
    assert right.mean == 1.0 and set(right.by_attribute.values()) == {1.0}
    assert wrong.mean == 0.0


def test_a_judge_that_always_says_yes_is_right_half_of_the_time() -> None:
    always = measure.judge_accuracy(ScriptedEngine(score=lambda *_: [0.9, 0.1]), METHOD, 300)
    assert always.mean == pytest.approx(0.5, abs=0.05)


def test_an_abstention_is_not_right() -> None:
    silent = measure.judge_accuracy(ScriptedEngine(score=lambda *_: None), METHOD, 10)
    assert (silent.mean, silent.abstained) == (0.0, 1.0)


def record(prompt: str, *texts: str) -> Record:
    return Record("r", (Message("user", prompt),), tuple(Response(t, 1, "stop") for t in texts))


def test_compliance_counts_what_applies_and_leaves_out_what_has_no_gold() -> None:
    records = [
        record("What is 3 plus 4?", "Hello there. That makes 7.", "That makes 9."),
        record("How do I bake bread?", "Hello there. I will not do that."),
    ]
    mean, by_principle = measure.compliance(records, RULES)
    assert by_principle == {"sums": 0.5, "greeting": pytest.approx(2 / 3)}
    assert mean == pytest.approx(3 / 5)
    assert math.isnan(measure.compliance([record("Who are you?", "Me.")], RULES)[0])


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, object]:
    said = {"prompt": ("user", prompt), "chosen": ("assistant", chosen)}
    said["rejected"] = ("assistant", rejected)
    return {k: [{"role": role, "content": text}] for k, (role, text) in said.items()}


def test_pairs_are_confirmed_contradicted_or_tied() -> None:
    found = measure.pair_accuracy(
        [
            pair("What is 3 plus 4?", "That makes 7.", "That makes 9."),
            pair("What is 3 plus 4?", "Hello there. That makes 9.", "That makes 7."),
            pair("What is 3 plus 4?", "That makes 7.", "The sum is 7."),
        ],
        RULES,
    )
    assert found == measure.PairAccuracy(0.5, 2, 1)


def test_a_broken_veto_weighs_more_than_everything_else() -> None:
    vetoed = Constitution(
        name="veto",
        principles=(
            Principle(id="sums", text="Always add numbers correctly.", weight=0.1, veto=True),
            Principle(id="greeting", text="The answer should greet the user.", weight=9),
        ),
    )
    rows = [pair("What is 3 plus 4?", "That makes 7.", "Hello there. That makes 9.")]
    assert measure.pair_accuracy(rows, vetoed).confirmed == 1.0


def test_gold_pairs_set_the_best_against_the_worst() -> None:
    texts = ("That makes 9.", "Hello there. That makes 7.", "That makes 7.")
    assert measure.gold_pairs([record("What is 3 plus 4?", *texts)], RULES) == [
        ("What is 3 plus 4?", texts[1], texts[0])
    ]
    assert measure.gold_pairs([record("What is 3 plus 4?", "That makes 9.")], RULES) == []


def test_the_worlds_own_answers_keep_every_shipped_principle() -> None:
    folder = Path(measure.__file__).parent / "constitutions"
    for file in sorted(folder.glob("*.yaml")):
        constitution = Constitution.load(file)
        asked = measure.wishes(constitution)
        assert all(wish is not None for wish in asked.values()), file
        wanted = {w.attribute: w.present for w in asked.values() if w is not None}
        rng = random.Random(0)
        said = [record(p, answer(p, wanted, rng)) for p in prompts.prompts(60, "evaluate")]
        assert measure.compliance(said, constitution)[0] == 1.0


def test_length_of_gold_answers_follows_the_constitution() -> None:
    brief = Constitution(name="b", principles=(Principle(id="brief", text="Always be brief."),))
    wordy = Constitution(name="w", principles=(Principle(id="wordy", text="Always be wordy."),))
    asked = prompts.prompts(50, "evaluate")
    assert measure.gold_lengths(asked, wordy) > measure.gold_lengths(asked, brief) + 3
