"""What is found out about a recipe before the first label is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.errors import RecipeError
from rlaif.loop.check_training import check_training


def write(folder: Path, **changes: Any) -> str:
    (folder / "c.yaml").write_text("name: c\nprinciples:\n  - id: one\n    text: Be kind.\n")
    (folder / "p.jsonl").write_text('{"prompt": "hello"}\n')
    recipe = {
        "run": str(folder / "run"), "constitution": "c.yaml", "student": {"model": "s"},
        "teacher": {"model": "t"}, "prompts": {"path": "p.jsonl"}, **changes,
    }  # fmt: skip
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return str(file)


def test_what_the_trainers_take_passes(tmp_path: Path) -> None:
    train = {"sft": {"max_steps": 3}, "dpo": {"beta": 0.1}, "lora": {"r": 4}}
    loop = {"metric": "rlaif.sandbox.measure:kept_by_gold", "report_to": ["tensorboard"]}
    check_training(write(tmp_path, train=train, loop=loop))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"dpo": {"betta": 0.1}}}, r"train\.dpo\.betta: unknown key .*'beta'"),
        ({"train": {"sft": {"max_steps": "three"}}}, r"train\.sft\.max_steps: not "),
        ({"train": {"lora": {"rank": 4}}}, r"train\.lora\.rank: unknown key"),
        ({"train": {"dpo": {}}, "loop": {"retry": {"train": {"dpo": {"betta": 1.0}}}}},
         r"loop\.retry\.train\.dpo\.betta: unknown key .*'beta'"),
        ({"loop": {"metric": "rlaif.sandbox.measure:nothing"}}, r"loop\.metric: no such function"),
        ({"loop": {"report_to": ["abacus"]}}, r"loop\.report_to: no such tracker"),
    ],
)  # fmt: skip
def test_what_they_do_not_take_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_training(write(tmp_path, **changes))
