"""What a stage is made of: what changes it, and what does not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.constitution import Constitution, Principle
from rlaif.loop.depends import Digests, Inputs, depends
from rlaif.loop.finished import STAGES
from rlaif.recipe import Recipe

LABELLING = {"seed", "sample", "judge"}


class Given:
    """A folder with a recipe that has something of everything, and what it depends on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        for name in ("student", "teacher", "critic", "embedder"):
            (root / name).mkdir()
            (root / name / "model.safetensors").write_text(name)
        for name in ("prompts", "held-out", "gate", "anchors", "instructions"):
            (root / f"{name}.jsonl").write_text(json.dumps({"prompt": name}) + "\n")
        self.constitution()

    def constitution(self, description: str = "", **changes: Any) -> None:
        rule = Principle(**{"id": "kind", "text": "Be kind.", **changes})
        made = Constitution(name="test", description=description, principles=(rule,))
        made.save(self.root / "constitution.yaml")

    def recipe(self, **sections: Any) -> Recipe:
        whole: dict[str, Any] = {
            "run": str(self.root / "run"),
            "constitution": "constitution.yaml",
            "student": {"model": "student"},
            "teacher": {"model": "teacher"},
            "prompts": {"path": "prompts.jsonl"},
            "gate": {"data": "gate.jsonl"},
            "critic": {"model": {"model": "critic"}},
            "anchors": {"path": "anchors.jsonl"},
            "embedding": {"model": "embedder"},
            "filter": {},
            "train": {"sft": {"max_steps": 3}, "dpo": {"beta": 0.1}, "reward": {}},
            "evaluate": {"prompts": {"path": "held-out.jsonl"}},
            "loop": {"rounds": 2, "seeds": {"instructions": "instructions.jsonl"}},
            **sections,
        }
        (self.root / "recipe.yaml").write_text(yaml.safe_dump(whole))
        return Recipe.load(self.root / "recipe.yaml")

    def made_of(self, **sections: Any) -> dict[str, Any]:
        """Each stage's `depends`."""
        recipe = self.recipe(**sections)
        digests = Digests()
        student, judge = digests.model(recipe.student), digests.model(recipe.teacher)
        inputs = Inputs(recipe, recipe, student, judge, digests=digests)
        return {stage: depends(stage, inputs, None) for stage in STAGES}


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path / "here")


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {stage for stage in STAGES if before[stage] != after[stage]}


def test_what_a_stage_is_made_of_is_plain_json_and_names_no_path(given: Given) -> None:
    told = json.dumps(given.made_of())
    assert json.loads(told) == given.made_of()
    assert str(given.root) not in told


def test_a_folder_that_was_moved_is_made_of_the_same(given: Given, tmp_path: Path) -> None:
    before = given.made_of()
    shutil.move(given.root, tmp_path / "there")
    given.root = tmp_path / "there"
    assert given.made_of() == before


@pytest.mark.parametrize(
    ("sections", "stages"),
    [
        ({"sample": {"n": 9}}, {"sample"}),
        ({"seed": 5}, {"sample"}),
        ({"pick": {"pair_margin": 2.0}}, {"judge"}),
        ({"judge": {"clip": 0.3}}, LABELLING),
        ({"train": {"sft": {"max_steps": 4}, "dpo": {"beta": 0.1}, "reward": {}}}, {"sft", "seed"}),
        ({"train": {"sft": {"max_steps": 3}, "dpo": {"beta": 0.2}, "reward": {}}}, {"dpo"}),
        ({"evaluate": {"prompts": {"path": "held-out.jsonl"}, "n": 2}}, {"evaluate"}),
        ({"filter": {"near_duplicates": None}}, {"filter"}),
        ({"topics": {"cells": 4}}, {"prompts"}),
        ({"loop": {"rounds": 2, "metric": "a:b", "seeds": {"instructions": "instructions.jsonl"}}},
         {"evaluate"}),
    ],
)  # fmt: skip
def test_a_setting_changes_the_stages_that_take_it(
    given: Given, sections: dict[str, Any], stages: set[str]
) -> None:
    assert changed(given.made_of(), given.made_of(**sections)) == stages


@pytest.mark.parametrize(
    "sections",
    [
        {"budget": {"tokens": 9}},
        {"costs": {"gpu_hour": 2.0}},
        {"loop": {"rounds": 9, "seeds": {"instructions": "instructions.jsonl"},
                  "stop": {"not_better": False}, "report_to": ["tensorboard"]}},
        {"train": {"sft": {"max_steps": 3, "logging_steps": 1, "report_to": "wandb"},
                   "dpo": {"beta": 0.1, "save_steps": 7}, "reward": {}}},
        {"student": {"model": "student", "engine_args": {"prices": [1, 2]}}},
    ],
)  # fmt: skip
def test_what_is_only_shown_kept_paid_or_ruled_changes_no_stage(
    given: Given, sections: dict[str, Any]
) -> None:
    assert changed(given.made_of(), given.made_of(**sections)) == set()


@pytest.mark.parametrize("changes", [{"weight": 2.0}, {"veto": True}, {"text": "Be very kind."}])
def test_a_principle_that_picks_otherwise_changes_what_is_labelled(
    given: Given, changes: dict[str, Any]
) -> None:
    before = given.made_of()
    given.constitution(**changes)
    assert changed(before, given.made_of()) == LABELLING


def test_what_people_alone_read_of_a_constitution_changes_nothing(given: Given) -> None:
    before = given.made_of()
    given.constitution(description="for people")
    assert given.made_of() == before


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("prompts.jsonl", {"prompts", "sample"}),
        ("gate.jsonl", {"sample"}),
        ("anchors.jsonl", {"prompts", "filter", "evaluate"}),
        ("held-out.jsonl", {"evaluate"}),
        ("instructions.jsonl", {"seed"}),
        ("student/model.safetensors", {"prompts", "sample"}),
        ("teacher/model.safetensors", {"prompts", "seed", "sample", "judge", "evaluate"}),
        ("embedder/model.safetensors", {"prompts", "filter", "evaluate"}),
        ("critic/model.safetensors", {"filter"}),
    ],
)
def test_a_file_of_other_contents_changes_the_stages_that_read_it_at_equal_size_too(
    given: Given, file: str, stages: set[str]
) -> None:
    before = given.made_of()
    path = given.root / file
    path.write_bytes(path.read_bytes()[:-3] + b"???")
    assert changed(before, given.made_of()) == stages


def test_rows_of_other_runs_change_the_trainings_that_take_them(given: Given) -> None:
    def other(data: str, text: str) -> None:
        (given.root / "other" / "data" / data).mkdir(parents=True, exist_ok=True)
        (given.root / "other" / "data" / data / "00000.parquet").write_text(text)

    train = {"sft": {}, "dpo": {}, "reward": {}}
    none = given.made_of(train=train)
    other("sft", "one")
    with_also = train | {"also": ["other"]}
    one = given.made_of(train=with_also)
    assert changed(none, one) == {"sft", "dpo", "reward"}, "not the seed, which has its own rows"
    assert str(given.root) not in json.dumps(one)
    other("sft", "two")
    assert changed(one, given.made_of(train=with_also)) == {"sft"}
    two = given.made_of(train=with_also)
    other("pairs", "three")
    assert changed(two, given.made_of(train=with_also)) == {"dpo", "reward"}


def test_a_file_that_was_only_touched_is_the_same(given: Given) -> None:
    before = given.made_of()
    os.utime(given.root / "student" / "model.safetensors", (1, 1))
    os.utime(given.root / "prompts.jsonl", (1, 1))
    assert given.made_of() == before


def test_a_file_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of many gigabytes is a stage's input in every round."""
    read: list[Path] = []

    def counted(real: Callable[[Path], str | None]) -> Callable[[Path], str | None]:
        return lambda path: (read.append(path), real(path))[1]

    import rlaif.loop.depends as module

    monkeypatch.setattr(module, "file_sha256", counted(module.file_sha256))
    file, digests = tmp_path / "model.safetensors", Digests()
    file.write_text("one")
    first = [digests.of(file), digests.of(tmp_path)["model.safetensors"]]
    assert len(read) == 1 and len(set(first)) == 1
    file.write_text("two")
    os.utime(file, (1, 1))
    assert digests.of(file) != first[0]


def test_a_name_on_the_hub_is_itself_and_what_is_not_there_is_none() -> None:
    assert Digests().of("some/model") == "some/model"
    assert Digests().of(None) is None


def test_a_stage_follows_from_the_one_before_it_and_from_the_other_rounds(given: Given) -> None:
    recipe = given.recipe()
    one = Inputs(recipe, recipe, "student", "judge")
    assert depends("judge", one, "a") != depends("judge", one, "b")
    also = Inputs(recipe, recipe, "student", "judge", earlier=("round 0",))
    assert depends("dpo", one, None) != depends("dpo", also, None)
    assert depends("sample", one, None) == depends("sample", also, None)
    other = Inputs(recipe, recipe, "another student", "judge")
    assert depends("sample", one, None) != depends("sample", other, None)
    judged = Inputs(recipe, recipe, "student", "another judge")
    assert depends("judge", one, None) != depends("judge", judged, None)
