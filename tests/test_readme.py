"""What the README shows is true: its example runs, and the files it names are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from rlaif.constitution import Constitution
from rlaif.recipe import Model, Recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_runs_and_is_short() -> None:
    (example,) = blocks("python")
    lines = [line for line in example.splitlines() if line and "import" not in line]
    assert len(lines) <= 15
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("[{")


def test_the_constitution_that_is_shown_is_a_good_one(tmp_path: Path) -> None:
    shown, *_ = blocks("yaml")
    file = tmp_path / "shown.yaml"
    file.write_text(shown, encoding="utf-8")
    assert len(Constitution.load(file).principles) == 2


def test_the_model_section_that_is_shown_is_a_good_one() -> None:
    _, shown, *_ = blocks("yaml")
    assert Model.model_validate(yaml.safe_load(shown)["teacher"]).engine == "vllm"


def test_the_gate_and_the_filters_are_sections_of_a_recipe() -> None:
    _, _, gate, filters, rounds = blocks("yaml")
    recipe = Recipe.model_validate(
        {
            "run": "run", "constitution": "c.yaml", "student": {"model": "s"},
            "teacher": {"model": "t"}, "prompts": {"path": "p.jsonl"},
            **yaml.safe_load(gate), **yaml.safe_load(filters), **yaml.safe_load(rounds),
        },
        strict=False,
    )  # fmt: skip
    assert recipe.anchors and recipe.filter and recipe.topics.cells == 32
    assert recipe.loop and recipe.loop.judge == "hand_over" and recipe.budget.gpu_hours == 40
    assert recipe.gate and recipe.critic and recipe.revise and recipe.pick.min_confidence


def test_every_file_that_is_named_is_there() -> None:
    folders = "scripts|recipes|constitutions|rlaif|docs"
    named = re.findall(rf"(?:^|[\s`(])((?:{folders})/[\w./-]+)", README)
    missing = [name for name in named if not (ROOT / name.rstrip(".")).exists()]
    assert named and not missing
