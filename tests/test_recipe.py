from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.errors import RecipeError
from rlaif.recipe import Evaluate, Model, Prompts, Recipe, Sample, Train

SMALL = """\
run: runs/test
constitution: rules.yaml
student:
  model: org/student
teacher:
  model: org/teacher
prompts:
  dataset: org/prompts
"""

FULL = """\
seed: 7
run: runs/test
constitution: rules.yaml
student: {model: weights, adapter: weights, dtype: bfloat16, engine_args: {batch_tokens: 4096}}
teacher: {model: org/teacher, revision: main, engine: transformers, trust_remote_code: true}
prompts: {path: prompts.jsonl, column: question, limit: 100, shard_size: 16}
sample: {n: 8, temperature: 0.7, top_p: 0.9, max_tokens: 64, stop: ["\\n\\n"]}
revise: {rounds: 2, model: student, temperature: 0.5, max_tokens: 64, stop: ["\\n\\n"]}
judge: {mode: pairwise, min_coverage: 0.2, reasoning: true, templates: weights, clip: 0.05}
pick: {min_margin: 0.5, pairs: all, pair_margin: 2, min_decided: 0.8, prefer_shorter_within: 0.1}
train:
  soft_labels: false
  lora: {r: 8, target_modules: [q_proj, v_proj]}
  sft: {learning_rate: 5e-5, bf16: false, report_to: none, eval_strategy: null}
  dpo: {beta: 0.1, loss_type: [sigmoid]}
  reward: {}
evaluate: {prompts: {dataset: org/held-out, split: test}, n: 2, bootstrap: 100}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    (folder / "weights").mkdir(parents=True)
    (folder / "rules.yaml").touch()
    (folder / "prompts.jsonl").touch()
    return folder


def load(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return Recipe.load(path)


def test_a_small_recipe_gets_the_defaults(folder: Path) -> None:
    recipe = load(folder, SMALL)
    assert recipe == Recipe(
        run="runs/test",
        constitution=folder / "rules.yaml",
        student=Model(model="org/student"),
        teacher=Model(model="org/teacher"),
        prompts=Prompts(dataset="org/prompts"),
    )
    assert recipe.sample.model_dump() == {
        "n": 4, "temperature": 1.0, "top_p": 1.0, "max_tokens": 256, "stop": (),
    }  # fmt: skip
    assert recipe.judge.mode == "pointwise"
    assert recipe.revise is None
    assert recipe.train.dpo is None


def test_a_full_recipe(folder: Path) -> None:
    recipe = load(folder, FULL)
    assert recipe.seed == 7
    assert recipe.run == "runs/test"
    assert recipe.student.adapter == folder / "weights"
    assert recipe.sample.stop == ("\n\n",)
    assert recipe.pick.pair_margin == 2.0
    assert recipe.evaluate.prompts == Prompts(dataset="org/held-out", split="test")


def test_the_arguments_of_other_libraries_go_through_untouched(folder: Path) -> None:
    train = load(folder, FULL).train
    assert train.sft == {
        "learning_rate": 5e-5, "bf16": False, "report_to": "none", "eval_strategy": None,
    }  # fmt: skip
    assert train.dpo == {"beta": 0.1, "loss_type": ["sigmoid"]}
    assert train.reward == {}
    assert train.lora == {"r": 8, "target_modules": ["q_proj", "v_proj"]}


def test_input_paths_are_relative_to_the_recipe(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "recipe.yaml").write_text(FULL)
    recipe = Recipe.load("recipe/recipe.yaml")
    assert recipe.constitution == folder / "rules.yaml"
    assert recipe.prompts.path == str(folder / "prompts.jsonl")
    assert recipe.judge.templates == folder / "weights"
    assert recipe.student.model == str(folder / "weights")
    assert recipe.teacher.model == "org/teacher"


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_what_is_saved_is_loaded_again_from_anywhere(
    folder: Path, tmp_path: Path, text: str
) -> None:
    recipe = load(folder, text)
    elsewhere = tmp_path / "elsewhere.yaml"
    recipe.save(elsewhere)
    once = elsewhere.read_bytes()
    assert Recipe.load(elsewhere) == recipe
    Recipe.load(elsewhere).save(elsewhere)
    assert elsewhere.read_bytes() == once


def test_a_saved_recipe_holds_its_defaults(folder: Path) -> None:
    load(folder, SMALL).save(folder / "saved.yaml")
    saved = yaml.safe_load((folder / "saved.yaml").read_text())
    assert saved["sample"]["n"] == 4
    assert saved["judge"]["clip"] == 0.01


@pytest.mark.parametrize(
    ("added", "line", "key", "told"),
    [
        ("sampel: {n: 4}", 9, "sampel", "did you mean 'sample'?"),
        ("sample: {max_token: 4}", 9, "sample.max_token", "did you mean 'max_tokens'?"),
        ("sample: {n: 0}", 9, "sample.n", "greater than or equal to 1"),
        ("sample: {n: '4'}", 9, "sample.n", "without quotes"),
        ("sample: {max_tokens: 0}", 9, "sample.max_tokens", "greater than or equal to 1"),
        ("sample: {temperature: -0.1}", 9, "sample.temperature", "greater than or equal to 0"),
        ("sample:\n  temperature: 0", 10, "sample.temperature", "all 4 responses the same"),
        ("sample: {top_p: 0}", 9, "sample.top_p", "greater than 0"),
        ("sample: {top_p: 1.1}", 9, "sample.top_p", "less than or equal to 1"),
        ("sample: {stop: END}", 9, "sample.stop", "not a list"),
        ("judge: {mode: pairwize}", 9, "judge.mode", "'pointwise', 'pairwise' or 'rating'"),
        ("judge: {min_coverage: 1.5}", 9, "judge.min_coverage", "less than or equal to 1"),
        ("judge: {clip: 0}", 9, "judge.clip", "greater than 0"),
        ("judge: {clip: 0.5}", 9, "judge.clip", "less than 0.5"),
        ("judge: {templates: nowhere}", 9, "judge.templates", "no such file or folder"),
        ("pick: {min_decided: 0}", 9, "pick.min_decided", "greater than 0"),
        ("pick: {min_decided: 1.1}", 9, "pick.min_decided", "less than or equal to 1"),
        ("pick: {pair_margin: -1}", 9, "pick.pair_margin", "greater than or equal to 0"),
        ("evaluate: {n: 2, temperature: 0}", 9, "evaluate.temperature", "the same"),
        ("evaluate: {prompts: {split: x}}", 9, "evaluate.prompts", "exactly one"),
        ("seed: -1", 9, "seed", "greater than or equal to 0"),
        ("train: {dpo: {output_dir: x}}", 9, "train.dpo.output_dir", "remove it"),
        ("train:\n  sft:\n    output_dir: x", 11, "train.sft.output_dir", "remove it"),
    ],
)
def test_a_fault_is_told_with_its_place(
    folder: Path, added: str, line: int, key: str, told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(folder, SMALL + added)
    assert (caught.value.line, caught.value.key) == (line, key)
    assert told in str(caught.value)
    assert caught.value.mend


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "told"),
    [
        ("rules.yaml", "other.yaml", 2, "constitution", "no such file or folder"),
        ("run: runs/test\n", "", 1, "run", "missing"),
        ("model: org/student", "model: ./weight", 4, "student.model", "no such file or folder"),
        ("model: org/student", "dtype: auto", 3, "student.model", "missing"),
        ("model: org/student", "model: x\n  dtype: fp16", 5, "student.dtype", "'float16'"),
        ("model: org/student", "model: x\n  engine: v", 5, "student.engine", "'transformers'"),
        ("dataset: org/prompts", "split: train", 7, "prompts", "exactly one"),
        ("dataset: org/prompts", "{path: rules.yaml, dataset: x}", 7, "prompts", "exactly one"),
        ("dataset: org/prompts", "{path: nowhere}", 8, "prompts.path", "no such file"),
        ("dataset: org/prompts", "{dataset: x, shard_size: 0}", 8, "prompts.shard_size", "1"),
    ],
)
def test_a_fault_in_what_must_be_there(
    folder: Path, old: str, new: str, line: int, key: str, told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(folder, SMALL.replace(old, new))
    assert (caught.value.line, caught.value.key) == (line, key)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("section", "arguments"),
    [
        (Sample, {"n": 2, "temperature": 0.0}),
        (Evaluate, {"n": 2, "temperature": 0}),
        (Train, {"reward": {"output_dir": "x"}}),
        (Prompts, {}),
    ],
)
def test_python_is_checked_like_a_file(section: type, arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        section(**arguments)


def test_greedy_sampling_of_one_response() -> None:
    assert Sample(n=1, temperature=0).temperature == 0.0


def test_reading_a_recipe_imports_nothing_heavy() -> None:
    code = "import sys, rlaif.recipe; print({m.split('.')[0] for m in sys.modules})"
    root = Path(__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    imported = found.stdout
    for heavy in ("torch", "transformers", "trl", "datasets", "numpy"):
        assert f"'{heavy}'" not in imported
