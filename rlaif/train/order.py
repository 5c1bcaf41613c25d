"""The order of a training's rows: decided by the seed and the epoch, and by nothing else.

Every process of a launch has to draw the same order, of which it takes its share, and a training
that is gone on with has to draw the one it was in. What transformers 5.19 groups by length is drawn
from torch's global generator, so that it is neither sure to be.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerState
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededOrder(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Sets the sampler's generator at the beginning of each epoch."""

    def on_epoch_begin(
        self, args: Any, state: TrainerState, control: Any, train_dataloader: Any = None, **_: Any
    ) -> None:
        """Called by the Trainer, with its own dataloader of all the epoch's batches."""
        sampler = _sampler(train_dataloader)
        if isinstance(sampler, LengthGroupedSampler):
            seed = args.seed if args.data_seed is None else args.data_seed
            sampler.generator = torch.Generator().manual_seed(seed + int(state.epoch))


def _sampler(dataloader: Any) -> object:
    """What draws single rows, below the wrappers that make batches of them and share those out."""
    batches = dataloader.batch_sampler
    while hasattr(batches, "batch_sampler"):
        batches = batches.batch_sampler
    return getattr(batches, "sampler", None)
