"""The sections of training and of comparing what was trained."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from rlaif.errors import RecipeError
from rlaif.input_path import InputPath
from rlaif.recipe.fields import (
    Clip,
    Count,
    LogOdds,
    Temperature,
    refuse_equal_responses,
)
from rlaif.recipe.sources import Model, Prompts
from rlaif.strict_model import Fault, Many, StrictModel

_SET_HERE = {"output_dir": "remove it: models go to the run folder, under models/"}


class PairChoice(StrictModel, error=RecipeError):
    """Which of a run's preference pairs a stage is trained on.

    A reward model learns what outweighs what from pairs that trade one principle for another. DPO
    learns the loss there together with the win. And where two responses are far apart, it mostly
    pushes down the words of the worse one, and with them all that are like them (the squeezing
    effect, arXiv:2407.10490).

    Attributes:
        max_margin: greatest margin of chosen over rejected, in nats; None takes all.
        max_concession: most by which the rejected may be the better one under any principle that
            was decided for both, in unweighted nats. At 0, no weights of these principles could
            turn a pair round: Pareto dominance.
        limit: at most so many, drawn by the recipe's seed.
    """

    max_margin: LogOdds | None = None
    max_concession: LogOdds | None = None
    limit: Count | None = None


class Train(StrictModel, error=RecipeError):
    """What is trained, in this order; a block that is not there is not trained.

    Attributes:
        soft_labels: train DPO on the labels' probabilities, not on 0 and 1.
        lora: arguments of `peft.LoraConfig`; None trains all weights.
        sft: arguments of `trl.SFTConfig`.
        dpo: arguments of `trl.DPOConfig`.
        reward: arguments of `trl.RewardConfig`.
        dpo_pairs: which pairs `dpo` is trained on.
        reward_pairs: which pairs `reward` is trained on.
        start: the model to train from; None is the student.
        also: other run folders whose rows are trained on as well; a loop adds its earlier rounds.
        continue_adapter: train the student's own adapter on, not a new one on the merged model.
    """

    soft_labels: bool = True
    lora: dict[str, Any] | None = None
    sft: dict[str, Any] | None = None
    dpo: dict[str, Any] | None = None
    reward: dict[str, Any] | None = None
    dpo_pairs: PairChoice = PairChoice()
    reward_pairs: PairChoice = PairChoice()
    start: Model | None = None
    also: Many[InputPath] = ()
    continue_adapter: bool = False

    @field_validator("sft", "dpo", "reward")
    @classmethod
    def _nothing_set_here(cls, block: dict[str, Any] | None) -> dict[str, Any] | None:
        for key, mend in _SET_HERE.items():
            if block and key in block:
                raise Fault("set by this package", at=(key,), value=block[key], mend=mend)
        return block


class Evaluate(StrictModel, error=RecipeError):
    """How the trained student is compared with the one it came from.

    Attributes:
        prompts: prompts that were not trained on; None leaves the comparison out.
        mode: how the teacher compares the two: both at once, in both orders, or each alone.
        n: responses a prompt, of each model.
        temperature: of sampling them.
        max_tokens: of each response, at most.
        clip: as the judge's, which shapes what is trained on; this one, what is measured.
        bootstrap: resamples behind a confidence interval.
    """

    prompts: Prompts | None = None
    mode: Literal["pointwise", "pairwise", "rating"] = "pairwise"
    n: Count = 1
    temperature: Temperature = 1.0
    max_tokens: Count = 256
    clip: Clip = 0.01
    bootstrap: Count = 2000

    @model_validator(mode="after")
    def _different_responses(self) -> Self:
        refuse_equal_responses(self.n, self.temperature)
        return self
