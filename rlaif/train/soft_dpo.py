"""DPO on soft labels: the judge's probability that the chosen response is the better one.

trainer ← dpo ← SoftDPOTrainer, in place of `trl.DPOTrainer` where `train.soft_labels` is true

With x = β·Δ, where Δ is the difference of the chosen and the rejected response's log-ratios of
policy to reference (arXiv:2305.18290, eq. 7), and p the probability of the label:

    loss = −p·log σ(x) − (1−p)·log σ(−x) = −log σ(x) + (1−p)·x

the cross-entropy against p, as in arXiv:2212.08073 (section 4.1) for the preference model. The
right-hand side is TRL's own loss and a term that is linear in x; only that term is added here.

Beside "sigmoid", `loss_type` may name "sft": the likelihood of the better response
(arXiv:2404.19733), which keeps DPO from wearing down what both have in common. Of two responses
that are better with probability p and 1−p, each counts by its own. With l for a token's
log-probability:

    −(p·Σ_chosen l + (1−p)·Σ_rejected l) / (p·n_chosen + (1−p)·n_rejected)

with sums over the batch, which for p = 1 is TRL's mean over the chosen tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from rlaif.errors import RecipeError
from rlaif.train.data import PROBABILITY

_COVERED: Mapping[str, tuple[object, ...]] = {
    "loss_type": (["sigmoid"], ["sigmoid", "sft"]),
    "label_smoothing": (0.0,),
    "use_weighting": (False,),
    "ld_alpha": (None,),
    "f_divergence_type": ("reverse_kl",),
    "padding_free": (False,),
    "use_liger_kernel": (False,),
    "remove_unused_columns": (True,),
}
"""What `trl.DPOConfig` may say for the formulas above to be the loss."""


def refuse_uncovered(config: Any) -> None:
    """Make sure that a `trl.DPOConfig` asks for the loss that soft labels are defined for.

    Raises:
        RecipeError: it asks for another; names both keys.
    """
    for key, covered in _COVERED.items():
        value = getattr(config, key)
        if value not in covered:
            raise RecipeError(
                "not defined for soft labels",
                key=f"train.dpo.{key}",
                value=value,
                mend=f"remove it ({covered[0]!r}), or set train.soft_labels to false",
            )


class SoftCollator(DataCollatorForPreference):  # type: ignore[misc]  # trl has no types
    """TRL's collator, which drops every column it does not know, and the probabilities."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch, with `chosen_probability` as a float32 tensor of shape (pairs,)."""
        batch: dict[str, Any] = super().torch_call(examples)
        batch[PROBABILITY] = torch.tensor([row[PROBABILITY] for row in examples])
        return batch


class SoftDPOTrainer(DPOTrainer):  # type: ignore[misc]  # trl has no types
    """`trl.DPOTrainer` whose rows have a `chosen_probability` between 0 and 1.

    Everything else, its metrics too, is TRL's.

    Raises:
        RecipeError: the config asks for a loss that soft labels are not defined for.
    """

    data_collator: Any
    precompute_ref_logps: bool
    loss_types: list[str]
    loss_weights: list[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        refuse_uncovered(kwargs["args"])
        super().__init__(*args, **kwargs)
        # Only now: TRL makes its own collator, and has used it for the reference.
        made = self.data_collator
        self.data_collator = SoftCollator(**{f.name: getattr(made, f.name) for f in fields(made)})

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if PROBABILITY not in self._signature_columns:
            self._signature_columns.append(PROBABILITY)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The reference's log-probabilities of chosen and rejected, each of shape (pairs,)."""
        # What stays in the batch is passed on to the model.
        inputs = {k: v for k, v in inputs.items() if k != PROBABILITY}
        chosen, rejected = super().compute_ref_log_probs(model, inputs)
        return chosen, rejected

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        inputs = dict(inputs)
        probability = inputs.pop(PROBABILITY)
        if not self.precompute_ref_logps:
            reference = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
            inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = reference
        policy = _FirstOutput(model)
        with self._reference_in_batch():
            result = super()._compute_loss(policy, inputs, return_outputs)
        x = self.beta * _difference(policy.output, inputs)
        soft = self.loss_weights[0] * ((1 - probability) * x).mean()
        if len(self.loss_types) == 2:
            certain, likely = (
                _likelihood(policy.output, inputs, p) for p in (torch.ones_like(x), probability)
            )
            soft = soft + self.loss_weights[1] * (certain - likely)
        return (result[0] + soft, result[1]) if return_outputs else result + soft

    @contextmanager
    def _reference_in_batch(self) -> Iterator[None]:
        """Let TRL take the reference from the batch instead of running it once more."""
        before = self.precompute_ref_logps
        self.precompute_ref_logps = True
        try:
            yield
        finally:
            self.precompute_ref_logps = before


class _FirstOutput:
    """Calls a model and keeps what it first returned: the policy's log-probabilities."""

    def __init__(self, model: Any) -> None:
        self.model, self.output = model, None

    def __call__(self, **inputs: Any) -> Any:
        output = self.model(**inputs)
        if self.output is None:
            self.output = output
        return output


def _difference(policy: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Δ of each pair, shape (pairs,): its gradient is the policy's."""
    length = inputs["completion_mask"].size(1) - 1
    # Zero where there is no completion. Prompt learning puts virtual tokens in front.
    log_probs: Tensor = policy.log_probs
    chosen, rejected = log_probs[:, -length:].sum(dim=1).chunk(2)
    return chosen - inputs["ref_chosen_logps"] - rejected + inputs["ref_rejected_logps"]


def _likelihood(policy: Any, inputs: Mapping[str, Tensor], probability: Tensor) -> Tensor:
    """The mean log-probability of a token, the responses weighted by p and 1−p; a number."""
    mask = inputs["completion_mask"][:, 1:]
    weight = torch.cat([probability, 1 - probability]).to(mask.device)
    log_probs: Tensor = policy.log_probs[:, -mask.size(1) :].sum(dim=1)
    return (weight * log_probs).sum() / (weight * mask.sum(dim=1)).sum()
