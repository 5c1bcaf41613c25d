from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from rlaif.errors import RecipeError
from rlaif.train.soft_dpo import SoftDPOTrainer
from tests.tiny_models import tiny_model_folder
from tests.train.tiny_run import QUICK, pairs

LORA = {"r": 4, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
SFT = {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.7, 0.4]}
WAYS = [{}, {"precompute_ref_log_probs": True}, {"peft_config": LORA}, SFT]
IDS = ["reference", "precomputed", "lora", "with sft"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("model"))


def dataset(rows: list[dict[str, Any]]) -> Dataset:
    columns = ["prompt", "chosen", "rejected", "chosen_probability"]
    return Dataset.from_list(rows).select_columns(columns)


def make(kind: type[Any], model: Path, rows: list[dict[str, Any]], **settings: Any) -> Any:
    """A trainer whose policy has moved away from its reference."""
    lora, held_out = settings.pop("peft_config", None), settings.pop("eval_dataset", None)
    cpu = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "seed": 1}
    trainer = kind(
        model=str(model),
        args=DPOConfig(output_dir=str(model / "out"), **{**QUICK, **cpu, **settings}),
        train_dataset=dataset(rows),
        eval_dataset=held_out,
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=None if lora is None else LoraConfig(**lora),
    )
    generator = torch.Generator().manual_seed(0)
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return trainer


def loss_and_gradients(trainer: Any, batch: dict[str, Any]) -> tuple[float, list[torch.Tensor]]:
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    weights = [w.grad for w in trainer.model.parameters() if w.grad is not None]
    return loss.item(), [w.clone() for w in weights]


def batch_of(trainer: Any) -> dict[str, Any]:
    first: dict[str, Any] = next(iter(trainer.get_train_dataloader()))
    return first


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_a_certain_label_gives_the_loss_of_trl(model: Path, way: dict[str, Any]) -> None:
    rows = pairs(4, chosen_probability=[1.0] * 4)
    hard, soft = make(DPOTrainer, model, rows, **way), make(SoftDPOTrainer, model, rows, **way)
    loss, gradients = loss_and_gradients(soft, batch_of(soft))
    trl_loss, trl_gradients = loss_and_gradients(hard, batch_of(hard))
    assert abs(trl_loss - 0.6931) > 0.05  # the policy is not the reference
    assert loss == pytest.approx(trl_loss, abs=1e-6)
    torch.testing.assert_close(gradients, trl_gradients, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_swapping_the_responses_and_the_label_changes_nothing(
    model: Path, way: dict[str, Any]
) -> None:
    rows = pairs(4)
    swapped = [
        row
        | {"chosen": row["rejected"], "rejected": row["chosen"]}
        | {"chosen_probability": 1 - row["chosen_probability"]}
        for row in rows
    ]
    one, other = (
        make(SoftDPOTrainer, model, rows, **way),
        make(SoftDPOTrainer, model, swapped, **way),
    )
    loss, gradients = loss_and_gradients(one, batch_of(one))
    swapped_loss, swapped_gradients = loss_and_gradients(other, batch_of(other))
    assert loss == pytest.approx(swapped_loss, abs=1e-6)
    torch.testing.assert_close(gradients, swapped_gradients, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("way", WAYS[:2], ids=IDS[:2])
def test_the_loss_is_the_formula_worked_out_by_hand(model: Path, way: dict[str, Any]) -> None:
    trainer = make(SoftDPOTrainer, model, pairs(4), beta=0.3, **way)
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    batch = batch_of(trainer)
    loss, _ = loss_and_gradients(trainer, batch)

    def log_probs(of: Any) -> torch.Tensor:
        logits = of(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        tokens = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])
        return (tokens[..., 0] * batch["completion_mask"][:, 1:]).sum(1)

    with torch.no_grad():
        chosen, rejected = (log_probs(trainer.model) - log_probs(reference)).chunk(2)
    x, p = 0.3 * (chosen - rejected), batch["chosen_probability"]
    assert p.unique().numel() > 1
    expected = (-p * logsigmoid(x) - (1 - p) * logsigmoid(-x)).mean()
    assert loss == pytest.approx(expected.item(), abs=1e-5)


def test_each_pair_arrives_with_its_own_probability(model: Path) -> None:
    rows = pairs(8, chosen_probability=[0.5 + i / 20 for i in range(8)])
    trainer = make(SoftDPOTrainer, model, rows)
    given = {tuple(r["prompt_ids"]): r["chosen_probability"] for r in trainer.train_dataset}
    seen = 0
    for batch in trainer.get_train_dataloader():
        n = len(batch["chosen_probability"])
        for ids, mask, p in zip(
            batch["input_ids"][:n],
            batch["completion_mask"][:n],
            batch["chosen_probability"],
            strict=True,
        ):
            prompt = tuple(ids[: int(mask.argmax())].tolist())
            assert given[prompt] == pytest.approx(p.item())
            seen += 1
    assert seen == 8


def test_a_batch_without_the_probabilities_is_no_certain_label(model: Path) -> None:
    trainer = make(SoftDPOTrainer, model, pairs(4))
    batch = batch_of(trainer)
    del batch["chosen_probability"]
    with pytest.raises(KeyError):
        trainer.compute_loss(trainer.model, batch)


def test_accumulated_batches_train_like_one_large_one(model: Path) -> None:
    weights = []
    for size, steps in ((4, 1), (1, 4)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        trainer = make(SoftDPOTrainer, model, pairs(8), **settings, optim="sgd", save_strategy="no")
        trainer.train()
        weights.append([w.detach().clone() for w in trainer.model.parameters()])
    torch.testing.assert_close(*weights, atol=1e-6, rtol=1e-4)


def test_the_metrics_are_those_of_trl(model: Path) -> None:
    trainer = make(SoftDPOTrainer, model, pairs(8), max_steps=1, save_strategy="no")
    trainer.train()
    assert {"rewards/chosen", "rewards/margins", "logps/rejected"} <= set(
        trainer.state.log_history[0]
    )


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_held_out_pairs_are_evaluated_softly(model: Path, way: dict[str, Any]) -> None:
    losses = []
    for p in (1.0, 0.5):
        held_out = dataset(pairs(4, chosen_probability=[p] * 4))
        trainer = make(SoftDPOTrainer, model, pairs(6), eval_dataset=held_out, **way)
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_no_model_is_given_the_probabilities(model: Path, way: dict[str, Any]) -> None:
    trainer = make(SoftDPOTrainer, model, pairs(6), **way)
    given: set[str] = set()
    models = [m for m in (trainer.model, trainer.ref_model) if m is not None]
    for one in models:
        one.register_forward_pre_hook(lambda _, __, kw: given.update(kw), with_kwargs=True)
    trainer.evaluate(dataset(pairs(4)))  # where they are precomputed, these need a reference too
    assert "input_ids" in given
    assert "chosen_probability" not in given


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss_type", "ipo"),
        ("loss_type", ["sigmoid", "hinge"]),
        ("label_smoothing", 0.1),
        ("use_weighting", True),
        ("ld_alpha", 0.5),
        ("f_divergence_type", "forward_kl"),
        ("padding_free", True),
        ("use_liger_kernel", True),
        ("remove_unused_columns", False),
    ],
)
def test_another_loss_is_refused_together_with_soft_labels(
    model: Path, key: str, value: object
) -> None:
    with pytest.raises(RecipeError) as error:
        make(SoftDPOTrainer, model, pairs(4), **{key: value})
    assert f"train.dpo.{key}" in str(error.value)
    assert "train.soft_labels" in str(error.value)
