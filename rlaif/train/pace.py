"""How fast a training goes: what `rlaif estimate` scales to the real number of steps.

trainer → Pace → the "trained" event of RUN/log.jsonl
"""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

from rlaif.train.trainers import Trainer


class Pace(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Notes when each step ends."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step of the optimizer is done."""
        self._ends.append(time.perf_counter())

    def told(self, trainer: Trainer, world_size: int) -> dict[str, float | None]:
        """Seconds and rows of a step, how often the rows are gone through, and how many there are.

        The first step is not counted: in it, memory is taken and kernels are chosen. A training
        of one step has no `seconds_a_step`. Where rows are packed, it is packs that are counted.

        Args:
            trainer: that has trained.
            world_size: processes that trained together.
        """
        args, ends = trainer.args, self._ends
        steps = len(ends) - 1
        return {
            "seconds_a_step": (ends[-1] - ends[0]) / steps if steps > 0 else None,
            "rows_a_step": (
                args.per_device_train_batch_size * world_size * args.gradient_accumulation_steps
            ),
            "epochs": args.num_train_epochs,
            "rows": len(trainer.train_dataset),
        }
