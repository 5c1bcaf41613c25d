from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.constitution import Constitution
from rlaif.errors import DataError, RecipeError
from rlaif.label.method import Method
from rlaif.loop.seeds import store_judgements, store_seeds
from rlaif.recipe import Recipe
from rlaif.records import Chat, Message, chat_to_json
from rlaif.run_folder import RunFolder

JUDGED = {
    "pointwise": {"prompt": "Hi.", "response": "Ho.", "principle": "kind", "keeps": True},
    "rating": {"prompt": "Hi.", "response": "Ho.", "principle": "kind", "rating": 4},
    "pairwise": {"prompt": "Hi.", "responses": ["Ho.", "Hu."], "principle": "kind", "better": 1},
}


class Given:
    """A recipe with seeds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "constitution.yaml").write_text(
            "name: t\nprinciples:\n- {id: kind, text: Be kind.}\n"
        )
        (root / "prompts.jsonl").write_text(json.dumps({"prompt": "x"}) + "\n")

    def recipe(
        self, mode: str = "pointwise", judge: Mapping[str, Any] | None = None, **seeds: Any
    ) -> Recipe:
        """With files of the rows that are given for `instructions` and `evaluations`."""
        for name, rows in seeds.items():
            text = "".join(
                (row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows
            )
            (self.root / f"{name}.jsonl").write_text(text)
        whole = {
            "run": str(self.root / "run"), "constitution": "constitution.yaml",
            "student": {"model": "s"}, "teacher": {"model": "t"},
            "prompts": {"path": "prompts.jsonl"}, "judge": {"mode": mode, **(judge or {})},
            "train": {"sft": {}, "dpo": {}},
            "loop": {"seeds": {name: f"{name}.jsonl" for name in seeds}},
        }  # fmt: skip
        (self.root / "recipe.yaml").write_text(yaml.safe_dump(whole))
        return Recipe.load(self.root / "recipe.yaml")

    def rows(self, recipe: Recipe) -> tuple[list[tuple[Any, str]], list[str]]:
        """Prompts with answers, and why others were kept aside."""
        stage = store_seeds(RunFolder(self.root / "seed"), recipe)
        rows = stage.read(0).to_pylist()
        made = [(row["prompt"], row["completion"][-1]["content"]) for row in rows]
        return made, [drop.reason for drop in stage.drops(0)]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


def asked(recipe: Recipe, *parts: str) -> Any:
    """What the recipe's judge is asked, as it is stored."""
    chat: Chat = (Message("user", "Hi."),)
    constitution = Constitution.load(recipe.constitution)
    text = constitution.principles[0].text
    return chat_to_json(Method.load(recipe.judge).question(chat, text, *parts))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi.", "completion": "Ho."},
        {"prompt": [{"role": "user", "content": "Hi."}],
         "completion": [{"role": "assistant", "content": "Ho."}]},
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]},
    ],
)  # fmt: skip
def test_instructions_are_taken_in_every_form_that_trl_knows(
    given: Given, row: dict[str, Any]
) -> None:
    made, aside = given.rows(given.recipe(instructions=[row]))
    assert made == [([{"role": "user", "content": "Hi."}], "Ho.")] and aside == []


@pytest.mark.parametrize(("keeps", "word"), [(True, "yes"), (False, "no")])
def test_a_pointwise_judgement_becomes_the_judge_s_own_question_and_its_word(
    given: Given, keeps: bool, word: str
) -> None:
    recipe = given.recipe(evaluations=[JUDGED["pointwise"] | {"keeps": keeps}])
    assert given.rows(recipe)[0] == [(asked(recipe, "Ho."), word)]


@pytest.mark.parametrize("rating", [1, 4, 5])
def test_a_rating_becomes_its_number(given: Given, rating: int) -> None:
    recipe = given.recipe("rating", evaluations=[JUDGED["rating"] | {"rating": rating}])
    assert given.rows(recipe)[0] == [(asked(recipe, "Ho."), str(rating))]


@pytest.mark.parametrize(("better", "words"), [(0, ["A", "B"]), (1, ["B", "A"])])
def test_a_comparison_is_taught_in_both_orders(given: Given, better: int, words: list[str]) -> None:
    """Or a student could learn that the first is the better one."""
    recipe = given.recipe("pairwise", evaluations=[JUDGED["pairwise"] | {"better": better}])
    questions = [asked(recipe, "Ho.", "Hu."), asked(recipe, "Hu.", "Ho.")]
    assert given.rows(recipe)[0] == list(zip(questions, words, strict=True))


def test_a_principle_may_be_a_text_of_its_own(given: Given) -> None:
    row = JUDGED["pointwise"] | {"principle": "Be brief."}
    [(question, _)], _ = given.rows(given.recipe(evaluations=[row]))
    assert "Be brief." in json.dumps(question)


@pytest.mark.parametrize(
    ("mode", "bad"),
    [
        ("pointwise", {"keeps": "yes"}), ("pointwise", {"keeps": 1}),
        ("pointwise", {"keeps": None}),
        ("pointwise", {"response": " "}), ("pointwise", {"principle": None}),
        ("rating", {"rating": 0}), ("rating", {"rating": 6}), ("rating", {"rating": True}),
        ("rating", {"rating": "4"}), ("pairwise", {"better": True}), ("pairwise", {"better": 2}),
        ("pairwise", {"responses": ["one"]}), ("pairwise", {"responses": "Ho."}),
    ],
)  # fmt: skip
def test_a_row_that_is_no_judgement_is_kept_aside_and_never_guessed_at(
    given: Given, mode: str, bad: dict[str, Any]
) -> None:
    rows = [JUDGED[mode] | bad, JUDGED[mode]]
    made, aside = given.rows(given.recipe(mode, evaluations=rows))
    assert len(made) == (2 if mode == "pairwise" else 1) and len(aside) == 1


@pytest.mark.parametrize(
    "bad",
    ["{", {"prompt": "Hi."}, {"prompt": "Hi.", "completion": ""}, {"messages": []},
     {"prompt": "Hi.", "completion": None}, {"prompt": "", "completion": "Ho."}],
)  # fmt: skip
def test_a_bad_instruction_is_kept_aside(given: Given, bad: Any) -> None:
    good = {"prompt": "Hi.", "completion": "Ho."}
    made, aside = given.rows(given.recipe(instructions=[bad, good]))
    assert len(made) == 1 and len(aside) == 1


def test_a_judgement_of_another_mode_is_kept_aside_with_what_is_missing(given: Given) -> None:
    rows = [JUDGED["pointwise"], JUDGED["rating"]]
    _, aside = given.rows(given.recipe("rating", evaluations=rows))
    assert aside == ["no `rating`, which a rating judge is taught by"]


def test_both_kinds_are_taught_together(given: Given) -> None:
    recipe = given.recipe(
        instructions=[{"prompt": "Hi.", "completion": "Ho."}], evaluations=[JUDGED["pointwise"]]
    )
    assert [answer for _, answer in given.rows(recipe)[0]] == ["Ho.", "yes"]


def test_a_file_without_one_usable_row_is_refused_with_the_first_reason(given: Given) -> None:
    with pytest.raises(DataError, match=r"evaluations\.jsonl: holds no usable seed, first: no `"):
        given.rows(given.recipe(evaluations=[{"prompt": "Hi."}]))


NEEDED = {
    "pointwise": "a pointwise judge learns from rows of `prompt`, `response`, `principle`, `keeps`",
    "rating": "a rating judge learns from rows of `prompt`, `response`, `principle`, `rating`",
    "pairwise": "a pairwise judge learns from rows of `prompt`, `responses`, `principle`, `better`",
}


@pytest.mark.parametrize("mode", NEEDED)
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi.", "responses": ["Ho.", "Hu."], "better": 1},
        {"prompt": "Hi.", "chosen": "Ho.", "rejected": "Hu."},
        {"input": "Hi.", "output_1": "Ho.", "output_2": "Hu.", "label": 1},
    ],
)
def test_a_gates_file_is_refused_with_the_keys_that_a_seed_has(
    given: Given, mode: str, row: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=re.escape(NEEDED[mode])) as refused:
        given.rows(given.recipe(mode, evaluations=[row]))
    assert len(str(refused.value).splitlines()) == 1


def test_a_constitution_is_refused_with_the_keys_that_a_seed_has(given: Given) -> None:
    recipe = given.recipe(evaluations=[])
    recipe = with_seeds(recipe, evaluations=given.root / "constitution.yaml")
    with pytest.raises(DataError, match=re.escape(NEEDED["pointwise"])):
        given.rows(recipe)


def with_seeds(recipe: Recipe, **seeds: Any) -> Recipe:
    assert recipe.loop is not None and recipe.loop.seeds is not None
    found = recipe.loop.seeds.model_copy(update=seeds)
    return recipe.model_copy(update={"loop": recipe.loop.model_copy(update={"seeds": found})})


def test_a_file_without_an_instruction_is_refused_with_the_keys_that_one_has(given: Given) -> None:
    with pytest.raises(DataError, match=r"; give rows of `messages`, or of `prompt` and `comple"):
        given.rows(given.recipe(instructions=[{"question": "Hi."}]))


def test_a_judge_that_gives_reasons_first_is_taught_none(given: Given) -> None:
    recipe = given.recipe(judge={"reasoning": True}, evaluations=[JUDGED["pointwise"]])
    with pytest.raises(RecipeError, match=r"judge\.reasoning: seeds have no reasons to give"):
        given.rows(recipe)


def test_seeds_are_stored_once_until_they_or_what_is_asked_change(given: Given) -> None:
    recipe = given.recipe(evaluations=[JUDGED["pointwise"]])
    given.rows(recipe)
    shard = given.root / "seed/data/sft/00000.parquet"
    before = shard.stat().st_ino
    given.rows(recipe)
    assert shard.stat().st_ino == before
    given.rows(given.recipe(evaluations=[JUDGED["pointwise"]] * 2))
    assert shard.stat().st_ino != before


def verdicts(given: Given, recipe: Recipe, pairs: int, **changes: Any) -> list[dict[str, Any]]:
    """The pairs of verdicts of a recipe that wants so many."""
    recipe = with_seeds(recipe, evaluation_pairs=pairs).model_copy(update=changes)
    stage = store_judgements(RunFolder(given.root / "judgements").create(), recipe)
    rows: list[dict[str, Any]] = stage.read(0).to_pylist()
    return rows


def words(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["chosen"][-1]["content"], row["rejected"][-1]["content"]


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (JUDGED["pointwise"], "yes", {"no"}),
        (JUDGED["pointwise"] | {"keeps": False}, "no", {"yes"}),
        (JUDGED["rating"], "4", {"1", "2", "3", "5"}),
    ],
)
def test_a_judgement_is_a_pair_of_the_right_verdict_and_a_wrong_one(
    given: Given, row: dict[str, Any], right: str, wrong: set[str]
) -> None:
    recipe = given.recipe("rating" if "rating" in row else "pointwise", evaluations=[row] * 40)
    made = verdicts(given, recipe, 40)
    assert {words(pair)[0] for pair in made} == {right}
    assert {words(pair)[1] for pair in made} == wrong
    assert all(pair["prompt"] == asked(recipe, "Ho.") for pair in made)
    assert all(pair["chosen_probability"] == 1.0 for pair in made)


def test_a_comparison_is_a_pair_in_both_orders(given: Given) -> None:
    recipe = given.recipe("pairwise", evaluations=[JUDGED["pairwise"]])
    made = verdicts(given, recipe, 9)
    assert sorted(map(words, made)) == [("A", "B"), ("B", "A")]


def test_so_many_judgements_are_drawn_as_are_wanted_and_always_the_same(given: Given) -> None:
    rows = [JUDGED["pointwise"] | {"prompt": f"Hi {i}."} for i in range(30)]
    recipe = given.recipe(evaluations=rows)
    made = verdicts(given, recipe, 10)
    assert len({str(pair["prompt"]) for pair in made}) == 10
    shard = given.root / "judgements/data/judgements/00000.parquet"
    bytes_ = shard.read_bytes()
    shard.unlink()
    assert verdicts(given, recipe, 10) == made and shard.read_bytes() == bytes_
    assert len(verdicts(given, recipe, 12)) == 12
    assert verdicts(given, recipe, 10, seed=1) != made


def test_verdicts_have_the_columns_of_the_pairs_that_they_are_trained_on_with(given: Given) -> None:
    recipe = given.recipe(evaluations=[JUDGED["pointwise"]])
    [pair] = verdicts(given, recipe, 1, pick=recipe.pick.model_copy(update={"write_margin": True}))
    assert pair["margin"] == 0.0
