"""Which of TRL's trainers trains a stage, and which columns it is meant to see.

sft     RUN/data/sft     SFTTrainer, on the completions alone
dpo     RUN/data/pairs   SoftDPOTrainer, or DPOTrainer where train.soft_labels is false
reward  RUN/data/pairs   RewardTrainer; a column `margin` (pick.write_margin) enters its loss
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from trl import DPOTrainer, RewardTrainer, SFTTrainer

from rlaif.train.data import MARGIN, PROBABILITY
from rlaif.train.plan import Plan
from rlaif.train.soft_dpo import SoftDPOTrainer

Trainer: TypeAlias = SFTTrainer | DPOTrainer | RewardTrainer


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
        return RewardTrainer(**parts)
    return SoftDPOTrainer(**parts) if plan.soft_labels else DPOTrainer(**parts)
