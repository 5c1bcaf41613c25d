"""The sections of labelling: sample, revise, judge, gate, pick, critic."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlaif.errors import RecipeError
from rlaif.input_path import InputPath
from rlaif.recipe.fields import (
    Clip,
    Count,
    LogOdds,
    Share,
    Temperature,
    refuse_equal_responses,
)
from rlaif.recipe.sources import Model
from rlaif.strict_model import Many, StrictModel


class Sample(StrictModel, error=RecipeError):
    """How the student answers: `n` responses a prompt, of at most `max_tokens` tokens each."""

    n: Count = 4
    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 256
    stop: Many[str] = ()

    @model_validator(mode="after")
    def _different_responses(self) -> Self:
        refuse_equal_responses(self.n, self.temperature)
        return self


class Revise(StrictModel, error=RecipeError):
    """How each response is criticised and revised before the judging; the draft stays beside it.

    Attributes:
        rounds: revisions of each response, one after the other, each under a drawn principle.
        model: what criticises and revises.
        temperature, top_p: of sampling both.
        max_tokens: of a revision, at most; one that is cut off is not used.
        max_critique_tokens: of a critique, likewise.
        stop: strings that end a revision.
    """

    rounds: Count = 1
    model: Literal["teacher", "student"] = "teacher"
    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 256
    max_critique_tokens: Count = 128
    stop: Many[str] = ()


class Judge(StrictModel, error=RecipeError):
    """How the teacher labels.

    Attributes:
        mode: a yes or no a response, a comparison of two, or a rating from 1 to 5.
        min_coverage: least probability mass on the label tokens; below it the judge abstains.
        reasoning: let the judge write its reasons before the label.
        max_reasoning_tokens: at most so many tokens of them.
        templates: a folder whose files replace those of rlaif/templates, file by file.
        clip: probabilities are kept this far from 0 and 1.
    """

    mode: Literal["pointwise", "pairwise", "rating"] = "pointwise"
    min_coverage: Share = 0.5
    reasoning: bool = False
    max_reasoning_tokens: Count = 128
    templates: InputPath | None = None
    clip: Clip = 0.01


class Gate(StrictModel, error=RecipeError):
    """What a judge must reach on labelled comparisons before anything is sampled.

    Each figure counts by the end of its 95 % interval that speaks against the judge.

    Attributes:
        data: labelled comparisons (rlaif/evaluate/comparison_files.py tells of the forms); they
            are balanced by length and by which side is right.
        min_accuracy: least share of right labels.
        max_calibration_error: greatest expected calibration error, of confidence calibrated on
            other prompts where there are enough rows for that.
        max_flip_rate: pairwise: greatest share of labels that turn round with the order.
        max_undecided: greatest share of comparisons without a label.
        calibrate: the curve that makes the pairs' probabilities from their margins; None leaves
            them as the judge gave them.
        fit_weights: fit the principles' weights to half of the comparisons about the whole
            constitution, around the author's own; all else is then measured on the other half.
        on_failure: stop before anything is sampled, or only say so.
    """

    data: InputPath
    min_accuracy: Share = 0.7
    max_calibration_error: Share = 0.15
    max_flip_rate: Share = 0.3
    max_undecided: Share = 0.3
    calibrate: Literal["temperature", "platt", "isotonic"] | None = "platt"
    fit_weights: bool = False
    on_failure: Literal["stop", "warn"] = "stop"


class Pick(StrictModel, error=RecipeError):
    """Which responses become training rows. Margins are differences of scores, in log-odds.

    Attributes:
        min_margin: least margin of the best response over the mean of the others, to become an
            SFT row.
        pairs: which pairs of a prompt's responses become preference pairs.
        pair_margin: least margin of chosen over rejected.
        min_confidence: least calibrated probability that a pair's label is right; it needs a gate
            that calibrates. None asks for none.
        min_decided: least share of the principles' weight that both sides have a verdict for.
        prefer_shorter_within: of responses this close to the best, take the shortest; None takes
            the best.
        write_margin: write the margin as the column that TRL's RewardTrainer takes into its loss.
    """

    min_margin: LogOdds = 0.0
    pairs: Literal["best_worst", "best_random", "all"] = "best_worst"
    pair_margin: LogOdds = 1.0
    min_confidence: Share | None = None
    min_decided: Annotated[float, Field(gt=0, le=1)] = 1.0
    prefer_shorter_within: LogOdds | None = None
    write_margin: bool = False


class Critic(StrictModel, error=RecipeError):
    """A second model that reviews what was picked; only what it is sure of is trained on.

    It is calibrated on the gate's comparisons.

    Attributes:
        model: the critic; another model than the teacher makes other mistakes.
        mode: how it compares the two responses of a pair under the constitution.
        checks: a constitution file of what a chosen response must keep besides, for instance
            constitutions/critic.yaml; None checks nothing else.
        min_confidence: least calibrated probability that a pair's label is right.
    """

    model: Model
    mode: Literal["pointwise", "pairwise", "rating"] = "pointwise"
    checks: InputPath | None = None
    min_confidence: Share = 0.95
