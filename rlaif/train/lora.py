"""LoRA: a recipe's `train.lora` is `peft.LoraConfig`; what comes out is also a whole model.

plan → lora_config → trainer → adapter → merge → RUN/models/<stage>/final

An adapter on its own needs to be told its base, and the base of a second stage is the first
stage's model. So every stage ends with a whole model, which is what the next one starts from:
the reference of DPO is then the SFT model, and no second adapter has to stand for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType
from peft.tuners.tuners_utils import check_target_module_exists
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from rlaif.errors import RecipeError
from rlaif.train.arguments import check_keys
from rlaif.train.plan import Plan, Stage

_KEY = "train.lora"


def lora_config(plan: Plan) -> LoraConfig | None:
    """The recipe's LoRA settings; None where all weights are trained.

    Raises:
        RecipeError: a key that peft does not know, or a value that it refuses; a `task_type` of
            another stage; an adapter on embeddings that are tied.
    """
    block = plan.recipe.train.lora
    if block is None:
        return None
    check_keys(block, LoraConfig, _KEY, plan.recipe_file)
    task = TaskType.SEQ_CLS if plan.stage == "reward" else TaskType.CAUSAL_LM
    if block.get("task_type", task) != task:
        raise RecipeError(
            f"the {plan.stage} stage trains {task.value}",
            file=plan.recipe_file,
            key=f"{_KEY}.task_type",
            value=block["task_type"],
            mend="remove it: each stage has its own",
        )
    try:
        made = LoraConfig(**{**block, "task_type": task})
    except (ValueError, TypeError) as error:
        raise RecipeError(str(error), file=plan.recipe_file, key=_KEY) from error
    _refuse_tied(made, plan)
    return made


def _refuse_tied(lora: LoraConfig, plan: Plan) -> None:
    """An adapter on one of two tied matrices unties them when it is merged: other logits."""
    start = plan.start
    trust = plan.recipe.student.trust_remote_code
    config = AutoConfig.from_pretrained(
        start.model, revision=start.revision, trust_remote_code=trust
    )
    if not getattr(config.get_text_config(), "tie_word_embeddings", False):
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    tied = (model.get_input_embeddings(), model.get_output_embeddings())
    for name, module in model.named_modules():
        if any(module is one for one in tied) and (key := _hit(lora, name)):
            raise RecipeError(
                f"{name} is tied to the output layer's weights, and an adapter on it "
                "merges into other logits",
                file=plan.recipe_file,
                key=f"{_KEY}.{key}",
                value=getattr(lora, key),
                mend="take it out of the list",
            )


def _hit(lora: LoraConfig, name: str) -> str | None:
    """The setting by which an adapter would be put on a module, if any."""
    leaf = name.rsplit(".", 1)[-1]
    if {leaf, name} & set(lora.modules_to_save or ()):
        return "modules_to_save"
    indices = lora.trainable_token_indices
    if indices is not None and (not isinstance(indices, dict) or {leaf, name} & set(indices)):
        return "trainable_token_indices"
    named = lora.target_modules is not None and lora.target_modules != "all-linear"
    # Not the truth of what peft returns: it has an object for "excluded" that is false.
    return "target_modules" if named and check_target_module_exists(lora, name) else None


def with_adapter(plan: Plan, args: Any, base: str) -> PeftModel:
    """A model with the adapter that its start has, to be trained on.

    TRL keeps a copy of it as the reference, so DPO's reference is the model that it began with.

    Args:
        plan: whose start has an adapter.
        args: TRL's config; its `model_init_kwargs` are used up here.
        base: the model that the adapter was trained on.
    """
    given = {"dtype": "float32", **(args.model_init_kwargs or {})}
    args.model_init_kwargs = None  # TRL takes them for a name alone
    model = load_base(plan.stage, base, trust_remote_code=args.trust_remote_code, **given)
    assert plan.start.adapter is not None
    return PeftModel.from_pretrained(model, plan.start.adapter, is_trainable=True)


def load_base(stage: Stage, model: str, **options: Any) -> PreTrainedModel:
    """A model as the trainer of a stage loads it: for "reward", with one output in place of words.

    Args:
        stage: what the model is for.
        model: a folder, or a name on the hub.
        options: of `from_pretrained`.
    """
    if stage == "reward":
        return AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, **options)
    return AutoModelForCausalLM.from_pretrained(model, **options)


def merge(base: PreTrainedModel, adapter: Path, tokenizer: Any, into: Path) -> None:
    """Write `base` with the adapter merged in, and a tokenizer, as a whole model.

    The base comes from its files rather than from a trainer's memory, where it may lie in parts
    on several processes.

    Args:
        base: the model that the adapter was trained on; it is used up.
        adapter: the adapter's folder.
        tokenizer: the model's tokenizer.
        into: the folder to write.
    """
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(into)
    tokenizer.save_pretrained(into)
