"""The sections that hold texts against human ones: filters, and what prompts are about."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlaif.errors import RecipeError
from rlaif.input_path import InputPath
from rlaif.recipe.fields import Count, Share, Temperature
from rlaif.recipe.sources import Model
from rlaif.strict_model import Fault, StrictModel


class Drift(StrictModel, error=RecipeError):
    """Whether a batch of training rows is distributed as the anchors are.

    Attributes:
        on_alarm: take out the fewest rows that end the alarm, discard the batch, or only say so.
        level: the alarm's chance where there is no drift.
        max_pruned: the largest share of the batch that pruning may take; beyond it, all goes.
        ngrams: compare the texts' n-grams too, not only what they are about.
    """

    on_alarm: Literal["prune", "discard", "warn"] = "prune"
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.025
    max_pruned: Share = 0.5
    ngrams: bool = True


class Density(StrictModel, error=RecipeError):
    """Which answers say too little.

    Attributes:
        classifier: what `rlaif density fit` wrote.
        min_share: least share of an answer's sentences that say something.
        remove: take the sentences that say little out of completions to imitate. A preference is
            about the texts that were judged, and they stay as they are.
    """

    classifier: InputPath
    min_share: Share = 0.5
    remove: bool = False


class Filter(StrictModel, error=RecipeError):
    """Which training rows are kept, held against the recipe's anchors.

    Attributes:
        compare: what of a row is compared: its prompt, its (chosen) response, or both joined.
        low, high: a band of cosines to the nearest anchor, outside of which a row is dropped; None
            fits one to the anchors.
        low_quantile, high_quantile: of the anchors among themselves, where the band is fitted. A
            high quantile of 0.99 drops more that says what an anchor says in other words, and with
            it new content; it is also better where `copy_overlap` is None.
        copy_overlap: share of character 3-grams in common with an anchor from which a row is its
            copy; None does not look.
        min_bertscore: least BERTScore F1 with the best of the few nearest anchors, a second metric
            of drift; None does not compute it, which takes a matrix product a pair.
        max_lost: share of fluent texts that may be taken for word salad; None does not look for it.
        near_duplicates: cosine from which two rows are one, and the first stays; None keeps all.
        density: None does not look for answers that say little.
        drift: None does not ask for the distribution.
    """

    compare: Literal["prompt", "response", "both"] = "both"
    low: Annotated[float, Field(ge=-1, le=1)] | None = None
    high: Annotated[float, Field(ge=-1, le=1)] | None = None
    low_quantile: Share = 0.06
    high_quantile: Share = 0.999
    copy_overlap: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    min_bertscore: Share | None = None
    max_lost: Annotated[float, Field(gt=0, le=0.5)] | None = 0.005
    near_duplicates: Annotated[float, Field(gt=0, le=1)] | None = 0.95
    density: Density | None = None
    drift: Drift | None = Drift()

    @model_validator(mode="after")
    def _whole_band(self) -> Self:
        if (self.low is None) != (self.high is None):
            at = "high" if self.high is None else "low"
            raise Fault("half a band", at=(at,), mend="give both `low` and `high`, or neither")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise Fault("not under `high`", at=("low",), value=self.low, mend="give less")
        if self.low_quantile >= self.high_quantile:
            raise Fault("not under `high_quantile`", at=("low_quantile",),
                        value=self.low_quantile, mend="give less")  # fmt: skip
        return self


class Topics(StrictModel, error=RecipeError):
    """What prompts are about, and how gaps between them are filled (`rlaif topics`).

    Attributes:
        cells: regions of embedding space.
        evenness: normalised topic entropy that filling the gaps is to reach, 0 to 1.
        generator: what writes new prompts; None asks the teacher.
        calls: questions to it, at most.
        tokens: that it may generate, at most; None is any number.
        temperature: of sampling them.
        max_tokens: of one, at most.
    """

    cells: Annotated[int, Field(ge=2)] = 32
    evenness: Share = 0.97
    generator: Model | None = None
    calls: Count = 10_000
    tokens: Count | None = None
    temperature: Temperature = 1.0
    max_tokens: Count = 128
