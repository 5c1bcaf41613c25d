"""Which of TRL's trainers trains a stage, and which columns it is meant to see.

sft     RUN/data/sft     SFTTrainer, on the completions alone
dpo     RUN/data/pairs   SoftDPOTrainer, or DPOTrainer where train.soft_labels is false
reward  RUN/data/pairs   RewardTrainer; a column `margin` (pick.write_margin) enters its loss
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from datasets import Dataset
from trl import DPOTrainer, RewardTrainer, SFTTrainer

from rlaif.train.data import MARGIN, PROBABILITY
from rlaif.train.plan import Plan
from rlaif.train.soft_dpo import SoftDPOTrainer

Trainer: TypeAlias = SFTTrainer | DPOTrainer | RewardTrainer
_BY_LENGTH = ("group_by_length", "batch_rebalance")


def columns(plan: Plan, given: Sequence[str]) -> list[str]:
    """The columns to train on, of those that are given."""
    if plan.stage == "sft":
        return ["prompt", "completion"]
    if plan.stage == "reward":
        return ["prompt", "chosen", "rejected", *([MARGIN] if MARGIN in given else [])]
    return ["prompt", "chosen", "rejected", *([PROBABILITY] if plan.soft_labels else [])]


def make_trainer(plan: Plan, **parts: Any) -> Trainer:
    """The stage's trainer, made of these parts (model, args, train_dataset, …)."""
    if plan.stage == "sft":
        return SFTTrainer(**parts)
    if plan.stage == "reward":
        trainer = RewardTrainer(**parts)
    else:
        trainer = SoftDPOTrainer(**parts) if plan.soft_labels else DPOTrainer(**parts)
    if trainer.args.train_sampling_strategy in _BY_LENGTH:
        _tell_lengths(trainer)
    return trainer


def _tell_lengths(trainer: DPOTrainer | RewardTrainer) -> None:
    """Give each pair the length that its batch is padded to for it.

    A sampler that groups by length finds that of a text by itself, but not that of a pair.
    """
    name = trainer.args.length_column_name
    trainer.train_dataset = trainer.train_dataset.add_column(name, _lengths(trainer.train_dataset))
    if trainer.eval_dataset is not None:
        trainer.eval_dataset = trainer.eval_dataset.add_column(name, _lengths(trainer.eval_dataset))
    trainer._set_signature_columns_if_needed()  # else the column is gone before it is asked for
    trainer._signature_columns.append(name)


def _lengths(pairs: Dataset) -> list[int]:
    """The tokens of each pair's prompt and of its longer answer."""
    chosen, rejected = pairs["chosen_ids"][:], pairs["rejected_ids"][:]
    answers = [max(len(a), len(b)) for a, b in zip(chosen, rejected, strict=True)]
    if "prompt_ids" not in pairs.column_names:  # the reward trainer's answers begin with it
        return answers
    prompts = pairs["prompt_ids"][:]
    return [len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
