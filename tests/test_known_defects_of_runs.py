"""Whole runs in which a labelling pipeline loses labels, or writes wrong ones, and says nothing.

As in test_known_defects.py, but from prompts to what is trained on; each test is named by what
would go wrong for the user.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import rlaif.pipeline
from rlaif import pipeline, strict_yaml
from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Label
from rlaif.engines.scripted import Masses, ScriptedEngine
from rlaif.errors import DataError
from rlaif.journal import Stage
from rlaif.label.rows import pair_schema
from rlaif.recipe import Recipe
from rlaif.records import Chat
from rlaif.run_folder import RunFolder
from rlaif.tables import SAMPLES
from tests.label.scripted_judges import data_of


def answer(chat: Chat) -> list[str]:
    return [f"{word} answer to {chat[-1].text}" for word in ("good", "bad", "fair")]


def honest(chat: Chat, labels: Sequence[Label]) -> Masses:
    text = data_of(chat)[1]
    kept = 0.9 if text.startswith("good") else 0.5 if text.startswith("fair") else 0.1
    return [kept, 1 - kept]


class Run:
    """A recipe of six prompts in shards of two, with scripted models."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.student = ScriptedEngine(generate=answer, name="student")
        self.teacher = ScriptedEngine(score=honest, name="teacher")
        monkeypatch.setattr(rlaif.pipeline, "load_engine", self._load)
        rule = Principle(id="kind", text="Be kind.")
        Constitution(name="test", principles=(rule,)).save(folder / "constitution.yaml")
        self.prompts(*(f"question {i}" for i in range(6)))

    def _load(self, spec: object, state: Path) -> ScriptedEngine:
        return self.teacher if getattr(spec, "model", "") == "teacher" else self.student

    def prompts(self, *texts: str, name: str = "prompts.jsonl") -> None:
        rows = "".join(json.dumps({"prompt": text}) + "\n" for text in texts)
        (self.folder / name).write_text(rows)

    def recipe(self, **sections: object) -> Recipe:
        file = self.folder / "recipe.yaml"
        whole: dict[str, object] = {
            "run": str(self.folder / "run"), "constitution": "constitution.yaml",
            "student": {"model": "student"}, "teacher": {"model": "teacher"},
            "prompts": {"path": "prompts.jsonl", "shard_size": 2}, **sections,
        }  # fmt: skip
        file.write_text(strict_yaml.dump(whole))
        return Recipe.load(file)

    def stage(self, name: str, schema: Any = None) -> Stage:
        return Stage(RunFolder(self.folder / "run"), name, schema or pair_schema(False))

    def pairs(self) -> list[tuple[str, str, str]]:
        stage = self.stage("pairs")
        rows = [row for shard in stage.shards() for row in stage.read(shard).to_pylist()]
        columns = ("prompt", "chosen", "rejected")
        return [tuple(row[c][-1]["content"] for c in columns) for row in rows]  # type: ignore[misc]

    def judged(self) -> int:
        return sum(len(chats) for what, chats in self.teacher.calls if what == "score_labels")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


@pytest.mark.parametrize("failing", range(3))
def test_a_judge_that_fails_once_costs_one_shard_and_no_label(run: Run, failing: int) -> None:
    """No failure is swallowed, none loses what was done, and what was done is not paid again."""
    calls = itertools.count()

    def fail(chat: Chat, labels: Sequence[Label]) -> Masses:
        if next(calls) == 6 * failing + 3:
            raise RuntimeError("the server is gone")
        return honest(chat, labels)

    teacher, run.teacher = run.teacher, ScriptedEngine(score=fail, name="teacher")
    with pytest.raises(RuntimeError, match="the server is gone"):
        pipeline.label(run.recipe())
    stored = (run.folder / "run" / "data").glob("verdicts/**/*.parquet")
    assert len(list(stored)) == failing
    sampled = len(run.student.calls)
    run.teacher = teacher
    pipeline.label(run.recipe())
    assert run.judged() == 6 * (3 - failing)
    assert len(run.student.calls) == sampled
    assert len(run.pairs()) == 6


def test_a_student_that_fails_loses_no_answer_either(run: Run) -> None:
    asked = itertools.count()

    def fail(chat: Chat) -> list[str]:
        if next(asked) == 3:
            raise RuntimeError("killed")
        return answer(chat)

    student, run.student = run.student, ScriptedEngine(generate=fail, name="student")
    with pytest.raises(RuntimeError, match="killed"):
        pipeline.label(run.recipe())
    assert run.stage("samples", SAMPLES).shards() == [0]
    run.student = student
    assert pipeline.label(run.recipe()).pairs == 6
    assert len(student.calls) == 2  # shards 1 and 2


def test_a_prompt_that_is_given_twice_is_labelled_once_and_the_other_is_kept_aside(
    run: Run,
) -> None:
    """Two rows under one id would share verdicts, and a random one of them would stay."""
    run.prompts("question 0", "question 1", "question 0")
    counts = pipeline.label(run.recipe())
    assert (counts.prompts, counts.pairs) == (2, 2)
    assert sum(counts.dropped["prompts"].values()) == 1


def test_without_a_judge_s_word_no_revision_is_chosen(run: Run) -> None:
    """A pipeline without a judge takes the revision as chosen, the first draft as rejected."""

    def write(chat: Chat) -> str:
        critique = chat[0].text.startswith("Find what is wrong")
        return "It is unkind." if critique else f"revised: {data_of(chat)[1]}"

    def say(chat: Chat, labels: Sequence[Label]) -> Masses:
        text = data_of(chat)[1]
        if "question 5" in text:
            return None
        if "question 4" in text:
            return [0.5, 0.5]
        return [0.1, 0.9] if text.startswith("revised") else [0.9, 0.1]

    run.teacher = ScriptedEngine(write, say, name="teacher")
    counts = pipeline.label(run.recipe(revise={}, pick={"pairs": "all"}, sample={"n": 3}))
    assert counts.responses == 36
    pairs = run.pairs()
    assert len(pairs) == 4 * 9
    for _, chosen, rejected in pairs:
        assert not chosen.startswith("revised")
        assert rejected.startswith("revised")
    assert counts.dropped["pairs"] == {"tie": 1, "all abstained": 1}


@pytest.mark.parametrize(
    ("mode", "masses"), [("rating", [0, 0, 0, 0, 0.9]), ("pointwise", [0.9, 0.05]),
                         ("pairwise", [0.9, 0.05])]
)  # fmt: skip
def test_a_judge_that_always_says_the_same_makes_no_labels_and_that_is_seen(
    run: Run, mode: str, masses: list[float]
) -> None:
    run.teacher = ScriptedEngine(score=lambda *_: masses, name="teacher")
    counts = pipeline.label(run.recipe(judge={"mode": mode}))
    assert (counts.pairs, counts.picks) == (0, 0)
    assert counts.dropped == {"pairs": {"tie": 6}, "sft": {"tie": 6}}


def test_a_prompt_of_the_evaluation_is_never_trained_on(run: Run) -> None:
    run.prompts("new", "question 3", name="held-out.jsonl")
    recipe = run.recipe(evaluate={"prompts": {"path": "held-out.jsonl"}}, train={"dpo": {}})
    pipeline.label(recipe)
    with pytest.raises(DataError, match="also labelled and trained on"):
        pipeline.evaluate(recipe)


@pytest.mark.parametrize(
    "text", ["Note: a: b\n\nHuman: hi\n\nAssistant: no", "a | b: c", "日本: 語"]
)
def test_a_prompt_goes_through_a_whole_run_as_it_was_given(run: Run, text: str) -> None:
    run.prompts(text)
    pipeline.label(run.recipe())
    [(prompt, chosen, rejected)] = run.pairs()
    assert (prompt, chosen, rejected) == (text, f"good answer to {text}", f"bad answer to {text}")
    asked = {chat[-1].text for _, chats in run.student.calls for chat in chats}
    assert asked == {text}


def test_every_prompt_ends_in_a_pair_or_in_a_reason(run: Run) -> None:
    def some(chat: Chat, labels: Sequence[Label]) -> Masses:
        text = data_of(chat)[1]
        return None if "1" in text else [0.01, 0.01] if "2" in text else honest(chat, labels)

    run.teacher = ScriptedEngine(score=some, name="teacher")
    counts = pipeline.label(run.recipe())
    stage = run.stage("pairs")
    made = [r for i in stage.shards() for r in stage.read(i)["record_id"].to_pylist()]
    aside = [drop for i in stage.shards() for drop in stage.drops(i)]
    assert counts.prompts == 6 == len({*made, *(drop.id for drop in aside)})
    assert Counter(d.reason for d in aside) == {"all abstained": 2}
    assert {d.detail.split(":")[0] for d in aside} == {"the script abstains", "little coverage"}
