"""Every YAML file that is shipped for people to start from can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif import strict_yaml
from rlaif.constitution import Constitution, Example
from rlaif.errors import RlaifError
from rlaif.recipe import Recipe

ROOT = Path(__file__).parents[1]
FOR_REAL_MODELS = ("helpful-honest-harmless", "customer-support", "coding-assistant")

in_recipes = [p for p in sorted(ROOT.glob("recipes/*/*.yaml")) if p.parent.name != "accelerate"]
# A recipe may keep its own constitution beside it.
constitutions = [
    path
    for path in (
        *sorted(ROOT.glob("constitutions/*.yaml")),
        *sorted(ROOT.glob("constitutions/*/*.yaml")),
        *in_recipes,
    )
    if path not in in_recipes or "principles" in strict_yaml.read(path, RlaifError).data
]
recipes = [path for path in in_recipes if path not in constitutions]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", constitutions, ids=name)
def test_a_shipped_constitution_loads(path: Path) -> None:
    assert Constitution.load(path).principles


@pytest.mark.parametrize("path", recipes, ids=name)
def test_a_shipped_recipe_loads_and_names_a_constitution_that_loads(path: Path) -> None:
    Constitution.load(Recipe.load(path).constitution)


@pytest.fixture(params=FOR_REAL_MODELS)
def shipped(request: pytest.FixtureRequest) -> Constitution:
    return Constitution.load(ROOT / "constitutions" / f"{request.param}.yaml")


def examples(constitution: Constitution) -> list[Example]:
    return [example for principle in constitution.principles for example in principle.examples]


def test_every_principle_has_two_examples_to_test_a_judge_on(shipped: Constitution) -> None:
    assert {p.id: len(p.examples) for p in shipped.principles if len(p.examples) < 2} == {}


def test_a_harm_is_a_veto(shipped: Constitution) -> None:
    assert any(principle.veto for principle in shipped.principles)


def test_no_prompt_is_used_twice(shipped: Constitution) -> None:
    prompts = [example.prompt for example in examples(shipped)]
    assert len(set(prompts)) == len(prompts)


def test_length_does_not_tell_the_better_response(shipped: Constitution) -> None:
    pairs = [(len(example.better), len(example.worse)) for example in examples(shipped)]
    assert [pair for pair in pairs if not 0.8 < pair[0] / pair[1] < 1.25] == []
    longer = sum(better > worse for better, worse in pairs)
    assert 0.35 <= longer / len(pairs) <= 0.65
