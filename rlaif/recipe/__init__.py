"""YAML ⇄ Recipe: what to run, one small section a stage.

Read at the start of a run; each stage takes its own section. What another library already
declares is not declared again: `train.dpo` *is* the arguments of `trl.DPOConfig`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from rlaif import strict_yaml
from rlaif.errors import RecipeError
from rlaif.input_path import InputPath
from rlaif.recipe.filtering import Density, Drift, Filter, Topics
from rlaif.recipe.labelling import Critic, Gate, Judge, Pick, Revise, Sample
from rlaif.recipe.looping import Budget, Costs, Loop, Seeds, Stop
from rlaif.recipe.sources import Anchors, Embedding, Model, Prompts
from rlaif.recipe.training import Evaluate, PairChoice, Train
from rlaif.strict_model import Fault, StrictModel, Text, validate

__all__ = [
    "Anchors", "Budget", "Costs", "Critic", "Density", "Drift", "Embedding", "Evaluate", "Filter",
    "Gate", "Judge", "Loop", "Model", "PairChoice", "Pick", "Prompts", "Recipe", "Revise",
    "Sample", "Seeds", "Stop", "Topics", "Train",
]  # fmt: skip


class Recipe(StrictModel, error=RecipeError):
    """A whole run.

    Attributes:
        seed: every random seed of the run follows from it and from the records' ids.
        run: the run folder, relative to the current directory.
        constitution: the constitution's file.
        student: the model being trained.
        teacher: the model that labels.
        revise: None leaves critique and revision out.
        anchors: the human gold set.
        loop: rounds, for `rlaif loop`; None runs the recipe's own sections once, as one round.
        costs: prices.
        budget: what `rlaif loop` may spend.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    run: Text
    constitution: InputPath
    student: Model
    teacher: Model
    prompts: Prompts
    sample: Sample = Sample()
    revise: Revise | None = None
    judge: Judge = Judge()
    gate: Gate | None = None
    pick: Pick = Pick()
    critic: Critic | None = None
    embedding: Embedding = Embedding()
    anchors: Anchors | None = None
    filter: Filter | None = None
    topics: Topics = Topics()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    loop: Loop | None = None
    costs: Costs = Costs()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _confidence_is_calibrated(self) -> Self:
        if self.pick.min_confidence is not None and (
            self.gate is None or self.gate.calibrate is None
        ):
            raise Fault(
                "confidence means nothing before it is calibrated",
                at=("pick", "min_confidence"), value=self.pick.min_confidence,
                mend="add a `gate` with labelled comparisons, and `calibrate`",
            )  # fmt: skip
        if self.critic is not None and self.gate is None:
            raise Fault(
                "a critic's confidence means nothing before it is calibrated",
                at=("critic",), mend="add a `gate` with labelled comparisons",
            )  # fmt: skip
        if self.filter is not None and self.anchors is None:
            raise Fault(
                "rows are held against anchors, and there are none",
                at=("filter",), mend="name human texts in an `anchors` section",
            )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _loop_has_what_it_needs(self) -> Self:
        loop = self.loop
        if loop is None:
            return self
        if loop.judge == "hand_over" and self.gate is None:
            raise Fault(
                "there is no gate for the student to pass",
                at=("loop", "judge"), value=loop.judge,
                mend="add a `gate` with labelled comparisons",
            )  # fmt: skip
        for key, value in (("prompts", loop.prompts == "gaps"), ("stop", loop.stop.max_drift)):
            if value and self.anchors is None:
                raise Fault(
                    "is measured against anchors, and there are none",
                    at=("loop", key), mend="name human texts in an `anchors` section",
                )  # fmt: skip
        return self

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """The recipe that a YAML file holds, its input paths made absolute.

        An input path is relative to the recipe's folder. A model or a dataset that is not there
        is taken as a name on the hub. `run` is relative to the current directory.

        Raises:
            RecipeError: the first fault, with file, line, key, value and mend.
        """
        return validate(cls, strict_yaml.read(path, RecipeError))

    def save(self, path: str | Path) -> None:
        """Write the recipe as YAML, defaults included; `load` gives an equal one back."""
        text = strict_yaml.dump(self.model_dump(mode="json"))
        Path(path).write_text(text, encoding="utf-8", newline="\n")
