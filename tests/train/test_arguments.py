from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlaif.errors import RecipeError
from rlaif.train.arguments import check_keys, config
from rlaif.train.plan import STAGES, Stage
from tests.train.tiny_run import TinyRun

Make = Callable[..., TinyRun]
ON_A_CPU = pytest.mark.skipif(torch.accelerator.is_available(), reason="about machines without one")


@pytest.mark.parametrize("stage", STAGES)
def test_a_misspelt_key_names_the_one_that_was_meant(tiny_run: Make, stage: Stage) -> None:
    run = tiny_run(**{stage: {"learning_rte": 0.1}})
    with pytest.raises(RecipeError) as error:
        config(run.plan(stage))
    assert f"train.{stage}.learning_rte" in str(error.value)
    assert "'learning_rate'" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", "fast"),
        ("max_steps", "3"),
        ("bf16", "yes"),
        ("bf16", 1),
        ("max_steps", True),
    ],
)
def test_text_where_a_number_belongs_is_refused(tiny_run: Make, key: str, value: object) -> None:
    with pytest.raises(RecipeError, match=f"train.sft.{key}"):
        config(tiny_run(sft={key: value}).plan("sft"))


def test_what_trl_refuses_is_one_line(tiny_run: Make) -> None:
    run = tiny_run(dpo={"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]})
    with pytest.raises(RecipeError, match=r"train\.dpo: .*loss_weights"):
        config(run.plan("dpo"))


def test_the_block_is_trl_s_own_and_the_rest_is_filled_in(tiny_run: Make) -> None:
    run = tiny_run(dpo={"beta": 0.25, "learning_rate": 3e-4})
    run.save(seed=5)
    made = config(run.plan("dpo"))
    assert (made.beta, made.learning_rate, made.seed) == (0.25, 3e-4, 5)
    assert made.output_dir == str(run.folder / "models" / "dpo")


def test_the_block_s_own_seed_wins(tiny_run: Make) -> None:
    assert config(tiny_run(sft={"seed": 9}).plan("sft")).seed == 9


@ON_A_CPU
def test_on_a_cpu_a_silent_block_gets_settings_for_a_cpu(tiny_run: Make) -> None:
    made = config(tiny_run(sft={}).plan("sft"))
    assert (made.bf16, made.gradient_checkpointing, made.use_cpu) == (False, False, True)


@ON_A_CPU
def test_on_a_cpu_the_block_still_decides(tiny_run: Make) -> None:
    made = config(tiny_run(sft={"bf16": True, "gradient_checkpointing": True}).plan("sft"))
    assert (made.bf16, made.gradient_checkpointing) == (True, True)


def test_yaml_s_no_is_the_word_that_trl_means(tiny_run: Make) -> None:
    run = tiny_run(sft={"save_strategy": False, "eval_strategy": False})
    made = config(run.plan("sft"))
    assert (made.save_strategy, made.eval_strategy) == ("no", "no")


def test_every_default_of_trl_passes_the_check_of_values(tiny_run: Make) -> None:
    plan = tiny_run(dpo={}).plan("dpo")
    from dataclasses import MISSING, fields

    from trl import DPOConfig, RewardConfig, SFTConfig

    for made in (SFTConfig, DPOConfig, RewardConfig):
        defaults: dict[str, Any] = {
            f.name: f.default for f in fields(made) if f.init and f.default is not MISSING
        }
        check_keys(defaults, made, "train", plan.recipe_file)
