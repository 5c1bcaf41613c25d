"""The Trainer's own loop, gone on with from a checkpoint where there is one.

run → run_loop → final

Given a checkpoint of the last step, as a training leaves it that died before its model was saved,
the Trainer of transformers 5.19 takes one step more, to other weights. Here it takes none.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerState

from rlaif.train.order import SeededOrder
from rlaif.train.trainers import Trainer


def run_loop(trainer: Trainer, checkpoint: str | None) -> int:
    """Train to the last step, and return how many steps that is."""
    trainer.add_callback(_NoStepMore())
    trainer.add_callback(SeededOrder())
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except _AtTheEndError:
        # Everything is loaded; this is what the Trainer would have done after its last step.
        if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
            trainer._load_best_model()
    steps: int = trainer.state.global_step
    return steps


class _AtTheEndError(Exception):
    """No step is left to take."""


class _NoStepMore(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            raise _AtTheEndError
