from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlaif.errors import RecipeError
from rlaif.train.lora import lora_config
from rlaif.train.run import train
from tests.tiny_models import tiny_llama_config, tiny_model_folder, tiny_tokenizer
from tests.train.tiny_run import QUICK, TinyRun

Make = Callable[..., TinyRun]
LORA = {"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj", "down_proj"]}
STEPS = {**QUICK, "max_steps": 4, "learning_rate": 1e-2}


def logits(model: Any, folder: Path) -> torch.Tensor:
    ids = AutoTokenizer.from_pretrained(folder)(
        "a helpful answer to the prompt", return_tensors="pt"
    )
    with torch.no_grad():
        made: torch.Tensor = model.eval()(**ids).logits
    return made


def test_the_final_model_is_the_base_with_the_adapter_merged_in(tiny_run: Make) -> None:
    run = tiny_run(sft=STEPS, lora=LORA)
    final = train("sft", run.recipe)
    base = AutoModelForCausalLM.from_pretrained(run.root / "student", dtype=torch.float32)
    before = logits(base, final)
    adapted = logits(PeftModel.from_pretrained(base, final.parent / "adapter"), final)
    merged = logits(AutoModelForCausalLM.from_pretrained(final), final)
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=1e-5)
    assert (merged - before).abs().max() > 0.01


def test_dpo_after_sft_refers_to_the_sft_model_and_ships_one_adapter(tiny_run: Make) -> None:
    run = tiny_run(sft=STEPS, dpo=STEPS, lora=LORA)
    sft = train("sft", run.recipe)
    final = train("dpo", run.recipe)
    assert run.history("dpo")[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert not list((run.folder / "models" / "dpo").rglob("ref"))
    settings = json.loads((final.parent / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(sft)
    base = AutoModelForCausalLM.from_pretrained(sft)
    adapted = logits(PeftModel.from_pretrained(base, final.parent / "adapter"), final)
    merged = logits(AutoModelForCausalLM.from_pretrained(final), final)
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=1e-5)


def test_a_reward_model_keeps_the_head_that_was_trained(tiny_run: Make) -> None:
    run = tiny_run(reward=STEPS, lora=LORA)
    final = train("reward", run.recipe)
    load = AutoModelForSequenceClassification.from_pretrained
    base = load(run.root / "student", num_labels=1)
    adapted = logits(PeftModel.from_pretrained(base, final.parent / "adapter"), final)
    merged, told = load(final, output_loading_info=True)
    assert not told["missing_keys"]
    torch.testing.assert_close(logits(merged, final), adapted, atol=1e-5, rtol=1e-5)


def test_a_killed_lora_training_goes_on_from_its_checkpoint(tiny_run: Make) -> None:
    run = tiny_run(dpo={**STEPS, "save_steps": 2}, lora=LORA)
    train("dpo", run.recipe)
    before = run.weights("dpo")
    (run.folder / "manifests" / "models" / "dpo.json").unlink()
    (run.folder / "models" / "dpo" / "checkpoint-4" / "adapter_model.safetensors").unlink()
    train("dpo", run.recipe)
    assert run.log("train")[-1]["resumed_from"] == "checkpoint-2"
    assert run.weights("dpo") == before


def test_a_student_with_an_adapter_is_merged_before_it_is_trained(tiny_run: Make) -> None:
    run = tiny_run(sft=STEPS, lora=LORA)
    tuned = train("sft", run.recipe)
    run.student["adapter"] = str(tuned.parent / "adapter")
    run.train.clear()
    run.train |= {"dpo": QUICK}
    run.folder = run.root / "second"
    TinyRun.__init__(run, run.root, **run.train)
    run.student["adapter"] = str(tuned.parent / "adapter")
    run.save()
    final = train("dpo", run.recipe)
    assert run.history("dpo")[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    before = logits(AutoModelForCausalLM.from_pretrained(tuned), final)
    start = next((run.folder / "models" / "start").iterdir())
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(start), final), before, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("key", "lora"),
    [
        ("target_modules", {"target_modules": ["q_proj", "embed_tokens"]}),
        ("target_modules", {"target_modules": ["lm_head"]}),
        ("target_modules", {"target_modules": r".*(q_proj|embed_tokens)"}),
        ("modules_to_save", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
        ("modules_to_save", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
        ("trainable_token_indices", {"target_modules": ["q_proj"], "trainable_token_indices": [1]}),
        ("trainable_token_indices", {"trainable_token_indices": {"embed_tokens": [1]}}),
    ],
)
def test_an_adapter_on_tied_embeddings_is_refused_before_training(
    tiny_run: Make, key: str, lora: dict[str, Any]
) -> None:
    run = tiny_run(sft=QUICK, lora=lora)
    with pytest.raises(RecipeError) as error:
        train("sft", run.recipe)
    assert f"train.lora.{key}" in str(error.value)
    assert "tied" in str(error.value)
    assert not (run.folder / "models").exists()


@pytest.mark.parametrize(
    "lora", [LORA, {"target_modules": "all-linear"}, {}, {"exclude_modules": ["lm_head"], **LORA}]
)
def test_an_adapter_elsewhere_is_not(tiny_run: Make, lora: dict[str, Any]) -> None:
    assert lora_config(tiny_run(sft=QUICK, lora=lora).plan("sft")) is not None


def test_an_adapter_on_embeddings_that_are_not_tied_is_not(tiny_run: Make) -> None:
    run = tiny_run(sft=STEPS, lora={"target_modules": ["q_proj", "embed_tokens"], "lora_alpha": 32})
    tokenizer = tiny_tokenizer()
    config = tiny_llama_config(tie_word_embeddings=False, vocab_size=len(tokenizer))
    run.student["model"] = str(tiny_model_folder(run.root / "untied", config))
    run.save()
    final = train("sft", run.recipe)
    base = AutoModelForCausalLM.from_pretrained(run.root / "untied")
    adapted = logits(PeftModel.from_pretrained(base, final.parent / "adapter"), final)
    merged = logits(AutoModelForCausalLM.from_pretrained(final), final)
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=1e-5)


def test_a_misspelt_key_names_the_one_that_was_meant(tiny_run: Make) -> None:
    with pytest.raises(RecipeError, match=r"train\.lora\.lora_alfa: .*'lora_alpha'"):
        lora_config(tiny_run(sft={}, lora={"lora_alfa": 8}).plan("sft"))


def test_each_stage_has_its_own_task(tiny_run: Make) -> None:
    run = tiny_run(sft={}, reward={}, lora={**LORA, "task_type": "CAUSAL_LM"})
    made = lora_config(run.plan("sft"))
    assert made is not None
    assert made.task_type == "CAUSAL_LM"
    run.train.pop("sft")
    run.save()
    with pytest.raises(RecipeError, match=r"train\.lora\.task_type"):
        lora_config(run.plan("reward"))


def test_an_adapter_that_is_continued_is_one_adapter_on_the_first_base(tiny_run: Make) -> None:
    run = tiny_run(sft=STEPS, dpo=STEPS, lora=LORA, continue_adapter=True)
    sft = train("sft", run.recipe)
    final = train("dpo", run.recipe)
    # The reference is the adapter that DPO began with: policy and reference are equal at first.
    assert run.history("dpo")[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    settings = json.loads((final.parent / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(run.root / "student")
    assert not list((run.folder / "models" / "dpo").glob("adapter/ref"))
    base = AutoModelForCausalLM.from_pretrained(run.root / "student", dtype=torch.float32)
    adapted = logits(PeftModel.from_pretrained(base, final.parent / "adapter"), final)
    merged = logits(AutoModelForCausalLM.from_pretrained(final), final)
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=1e-5)
    before = logits(AutoModelForCausalLM.from_pretrained(sft), final)
    assert (merged - before).abs().max() > 0.001, "it was trained on"


def test_a_students_own_adapter_is_trained_on(tiny_run: Make) -> None:
    run = tiny_run(sft=STEPS, lora=LORA)
    first = train("sft", run.recipe).parent / "adapter"
    kept = run.root / "kept"
    first.rename(kept)
    run.student = {**run.student, "adapter": str(kept)}
    run.train = {"dpo": STEPS, "lora": LORA, "continue_adapter": True}
    run.save()
    final = train("dpo", run.recipe)
    assert run.history("dpo")[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    settings = json.loads((final.parent / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(run.root / "student")
