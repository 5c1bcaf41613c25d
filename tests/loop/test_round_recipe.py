from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.errors import RecipeError
from rlaif.loop.round_recipe import (
    merged,
    round_recipe,
    seed_recipe,
    training_stages,
    trains_sft,
    write_recipe,
)
from rlaif.recipe import Model, Recipe
from rlaif.run_folder import RunFolder

SEEDS = {"instructions": "prompts.jsonl"}


def loaded(root: Path, **sections: Any) -> Recipe:
    (root / "constitution.yaml").write_text("name: t\nprinciples:\n- {id: a, text: b}\n")
    (root / "prompts.jsonl").write_text(json.dumps({"prompt": "x"}))
    whole: dict[str, Any] = {
        "seed": 7, "run": str(root / "run"), "constitution": "constitution.yaml",
        "student": {"model": "org/student"}, "teacher": {"model": "org/teacher"},
        "prompts": {"path": "prompts.jsonl"}, "train": {"sft": {}, "dpo": {}}, "loop": {},
        "budget": {"tokens": 5}, "costs": {"gpu_hour": 1.0}, **sections,
    }  # fmt: skip
    (root / "recipe.yaml").write_text(yaml.safe_dump(whole))
    return Recipe.load(root / "recipe.yaml")


def of_round(recipe: Recipe, number: int, **given: Any) -> Recipe:
    """A round's recipe, put into its folder and loaded from there."""
    run = RunFolder(Path(recipe.run) / "rounds" / f"{number:02d}")
    made = {"student": Model(model="org/now"), "judge": Model(model="org/judge"), **given}
    return write_recipe(run, round_recipe(recipe, run, number, **made))


def test_a_round_is_an_ordinary_recipe_of_its_own_student_judge_and_folder(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    made = of_round(recipe, 2)
    assert (made.student.model, made.teacher.model) == ("org/now", "org/judge")
    assert made.run == str(tmp_path / "run/rounds/02")
    assert made.loop is None and made.budget.tokens is None and made.costs.gpu_hour is None
    assert (made.seed, made.prompts, made.sample) == (7, recipe.prompts, recipe.sample)


@pytest.mark.parametrize(
    ("loop", "trains"),
    [({}, [True, False, False]), ({"sft": "every"}, [True, True, True]),
     ({"seeds": SEEDS}, [False, False, False]),
     ({"sft": "every", "seeds": SEEDS}, [True, True, True])],
)  # fmt: skip
def test_sft_comes_in_the_first_round_or_in_every_one_and_seeds_are_the_first(
    tmp_path: Path, loop: dict[str, Any], trains: list[bool]
) -> None:
    recipe = loaded(tmp_path, loop=loop)
    assert [trains_sft(recipe, n) for n in range(3)] == trains
    assert [of_round(recipe, n).train.sft is not None for n in range(3)] == trains
    for number, sft in enumerate(trains):
        assert training_stages(recipe, number) == (["sft"] if sft else []) + ["dpo"]


def test_a_recipe_s_own_stages_are_trained_in_order_and_no_other(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, train={"reward": {}, "dpo": {}})
    assert training_stages(recipe, 0) == ["dpo", "reward"]
    assert training_stages(loaded(tmp_path, train={"sft": {}}), 1) == []


def test_a_round_starts_from_the_last_student_or_each_time_from_the_first(tmp_path: Path) -> None:
    last, first = loaded(tmp_path), loaded(tmp_path, loop={"start": "first"})
    assert of_round(last, 1).train.start is None
    assert of_round(first, 0).train.start is None
    start = of_round(first, 1).train.start
    assert start is not None and start.model == "org/student"
    assert of_round(first, 1).student.model == "org/now", "the last student still samples"


def test_the_rows_of_earlier_rounds_are_trained_on_as_well(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    earlier = [RunFolder(tmp_path / "run/seed"), RunFolder(tmp_path / "run/rounds/00")]
    for folder in earlier:
        folder.create()
    made = of_round(recipe, 1, earlier=earlier)
    assert [Path(p) for p in made.train.also] == [f.root for f in earlier]
    assert of_round(recipe, 0).train.also == ()


def test_rows_that_the_recipe_itself_names_are_trained_on_in_every_round(tmp_path: Path) -> None:
    own = RunFolder(tmp_path / "other").create()
    recipe = loaded(tmp_path, train={"dpo": {}, "also": ["other"]})
    earlier = RunFolder(tmp_path / "run/rounds/00").create()
    assert of_round(recipe, 0).train.also == (own.root,)
    assert of_round(recipe, 1, earlier=[earlier]).train.also == (own.root, earlier.root)


@pytest.mark.parametrize(
    ("lora", "own", "goes_on"),
    [("merge", False, False), ("continue", False, True), ("merge", True, True)],
)
def test_an_adapter_is_gone_on_with_where_the_recipe_says_so(
    tmp_path: Path, lora: str, own: bool, goes_on: bool
) -> None:
    train = {"dpo": {}, "lora": {"r": 2}, "continue_adapter": own}
    recipe = loaded(tmp_path, loop={"lora": lora}, train=train)
    assert of_round(recipe, 1).train.continue_adapter is goes_on


@pytest.mark.parametrize(
    ("loop", "prompts", "skips"),
    [({}, {"limit": 10, "skip": 5}, [5, 5, 5]), ({"prompts": "next"}, {"limit": 10}, [0, 10, 20]),
     ({"prompts": "next"}, {"limit": 10, "skip": 5}, [5, 15, 25]),
     ({"prompts": "next"}, {}, [0, 0, 0])],
)  # fmt: skip
def test_prompts_are_the_same_in_every_round_or_the_next_ones_as_many_again(
    tmp_path: Path, loop: dict[str, Any], prompts: dict[str, Any], skips: list[int]
) -> None:
    recipe = loaded(tmp_path, loop=loop, prompts={"path": "prompts.jsonl", **prompts})
    made = [of_round(recipe, n).prompts for n in range(3)]
    assert [one.skip for one in made] == skips
    assert {one.limit for one in made} == {prompts.get("limit")}


def test_prompts_that_were_made_for_a_round_are_all_taken(tmp_path: Path) -> None:
    given = {"path": "prompts.jsonl", "limit": 3, "skip": 1, "shard_size": 2}
    recipe = loaded(tmp_path, prompts=given)
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"prompt": "y"}))
    made = of_round(recipe, 1, prompts=own).prompts
    assert (made.path, made.limit, made.skip, made.shard_size) == (str(own), None, 0, 2)


def test_a_round_that_is_tried_again_draws_otherwise_and_changes_what_the_recipe_says(
    tmp_path: Path,
) -> None:
    retry = {"pick": {"pair_margin": 2.0}, "train": {"dpo": {"beta": 0.5}}}
    recipe = loaded(
        tmp_path, loop={"retries": 2, "retry": retry},
        pick={"min_margin": 0.25}, train={"sft": {}, "dpo": {"beta": 0.1, "max_steps": 3}},
    )  # fmt: skip
    first, again, third = (of_round(recipe, 0, attempt=n) for n in range(3))
    assert first.pick.pair_margin == 1.0
    assert (again.pick.pair_margin, again.pick.min_margin) == (2.0, 0.25)
    assert again.train.dpo == {"beta": 0.5, "max_steps": 3} and again.train.sft == {}
    assert len({first.seed, again.seed, third.seed}) == 3
    fixed = loaded(tmp_path, loop={"retry": {"seed": 5}})
    assert of_round(fixed, 0, attempt=1).seed == 5


def test_a_retry_that_changes_a_training_adds_it_to_no_round_that_has_none(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, loop={"retry": {"train": {"sft": {"max_steps": 1}}}})
    assert of_round(recipe, 0, attempt=1).train.sft == {"max_steps": 1}
    assert of_round(recipe, 1, attempt=1).train.sft is None


def test_a_retry_that_makes_no_recipe_is_refused(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, loop={"retry": {"pick": {"margin": 2.0}}})
    with pytest.raises(RecipeError, match=r"pick\.margin: unknown key"):
        of_round(recipe, 0, attempt=1)


def test_what_is_taught_before_the_first_round_is_sft_alone(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, loop={"seeds": SEEDS}, train={"sft": {"max_steps": 3}, "dpo": {}})
    run = RunFolder(tmp_path / "run/seed")
    made = write_recipe(run, seed_recipe(recipe, run))
    assert made.train.sft == {"max_steps": 3}
    assert made.train.dpo is None and made.train.reward is None
    assert made.run == str(run.root) and made.student == recipe.student


def test_a_recipe_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    of_round(recipe, 0)
    file = tmp_path / "run/rounds/00/recipe.yaml"
    before = file.stat().st_ino
    of_round(recipe, 0)
    assert file.stat().st_ino == before
    of_round(recipe, 0, judge=Model(model="org/other"))
    assert file.stat().st_ino != before


def test_mappings_are_merged_key_by_key_and_lists_are_replaced() -> None:
    under = {"a": {"b": 1, "c": {"d": 1}}, "e": [1, 2], "f": {"g": 1}}
    over = {"a": {"c": {"h": 2}}, "e": [3], "f": None, "new": {"i": 1}}
    assert merged(under, over) == {
        "a": {"b": 1, "c": {"d": 1, "h": 2}}, "e": [3], "f": None, "new": {"i": 1},
    }  # fmt: skip
    assert under["a"] == {"b": 1, "c": {"d": 1}}
