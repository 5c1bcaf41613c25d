"""The sections of a loop: its rounds, its seeds, when it stops, what it may spend."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rlaif.errors import RecipeError
from rlaif.input_path import InputPath
from rlaif.recipe.fields import Count, Money, Share
from rlaif.strict_model import Many, StrictModel, Text

Growth = Annotated[float, Field(ge=1)]


class Seeds(StrictModel, error=RecipeError):
    """What the student is taught before the first round (arXiv:2401.10020, section 2.1).

    Attributes:
        instructions: prompts with good answers: rows of `prompt` and `completion`, or `messages`.
        evaluations: labelled judgements in the form of the recipe's judge: rows of `prompt`,
            `principle` and, for a pointwise judge, `response` and `keeps` (true or false); for a
            rating one, `response` and `rating` (1 to 5); for a pairwise one, `responses` (two) and
            `better` (0 or 1). They become questions to the judge with the right answers, and a
            student that is to judge learns the form from them.
        repeat: have them among the rows of every later SFT as well.
        evaluation_pairs: how many of the judgements are pairs in the DPO of every round as well,
            the right verdict preferred to a wrong one: what teaches a student to answer alone
            wears down how it judges. More than there are takes all.
    """

    instructions: InputPath | None = None
    evaluations: InputPath | None = None
    repeat: bool = True
    evaluation_pairs: Annotated[int, Field(ge=0)] = 0


class Stop(StrictModel, error=RecipeError):
    """When a loop stops before its last round; None leaves a rule out.

    A judge that falls under the recipe's `gate` stops it too, before it has labelled anything.

    Attributes:
        max_length_growth: greatest mean length of the answers, over that of the student before
            any round. Length is what a loop grows when it has nothing better to learn.
        max_one_bin: greatest share of the judge's probabilities in one of ten bins. A judge that
            always says the same tells nothing apart. The highest bin may hold more where the
            `gate` has found the judge surely better than chance: then the student is good.
        not_better: stop where the win rate over the last round is not above one half by its 95 %
            interval; what follows would be noise.
        falling: stop where the held-out metric is under that of the best round by both intervals.
        max_drift: greatest drift of the answers from the anchors, in nats above chance.
        min_tail_coverage: least share of the anchors' rare regions still reached, over the share
            that the student reached before any round.
    """

    max_length_growth: Growth | None = 1.5
    max_one_bin: Share | None = 0.98
    not_better: bool = True
    falling: bool = True
    max_drift: Annotated[float, Field(gt=0)] | None = None
    min_tail_coverage: Share | None = 0.7


class Loop(StrictModel, error=RecipeError):
    """Rounds: the student of one is where the next begins.

    Attributes:
        rounds: how many, at most.
        judge: who labels: the recipe's teacher in every round; the student itself; or the teacher
            until the student passes the teacher's gate.
        data: train a round on the rows of all rounds so far, or on its own alone.
        prompts: the recipe's in every round; the next ones of the same source, as many again; or
            the recipe's and new ones where the anchors are and the prompts are not.
        sft: fine-tune on picks in every round, or only in the first.
        start: train from the last round's student, or each time from the first.
        lora: go on with the last round's adapter, or merge it and begin a new one.
        seeds: what is taught before the first round.
        metric: a held-out metric, "package.module:function"; the function takes a record and the
            constitution, and returns the values of the record's answers by the principle's id.
            None measures none.
        stop: when to stop early.
        retries: how often a round that fails its checks is rolled back and tried again.
        retry: what is changed then: sections of the recipe, merged key by key.
        launch: a config file of `accelerate launch`; None takes its defaults.
        report_to: trackers that get the figures of each round, by TRL's names.
        push_to_hub: a repository's name: the best model goes there, and its labels to
            "<name>-labels"; the token comes from the environment. None pushes nothing.
    """

    rounds: Count = 3
    judge: Literal["teacher", "student", "hand_over"] = "teacher"
    data: Literal["accumulate", "replace"] = "accumulate"
    prompts: Literal["same", "next", "gaps"] = "same"
    sft: Literal["every", "first"] = "first"
    start: Literal["last", "first"] = "last"
    lora: Literal["merge", "continue"] = "merge"
    seeds: Seeds | None = None
    metric: Text | None = None
    stop: Stop = Stop()
    retries: Annotated[int, Field(ge=0)] = 0
    retry: dict[str, Any] = Field(default_factory=dict)
    launch: InputPath | None = None
    report_to: Many[Text] = ()
    push_to_hub: Text | None = None


class Costs(StrictModel, error=RecipeError):
    """What things cost, in one currency; without prices, only tokens and time are told.

    A model behind a server has its own prices, in its `engine_args`.

    Attributes:
        gpu_hour: of one GPU.
        human_label_low, human_label_high: of one preference by a person, to stand beside ours.
    """

    gpu_hour: Money | None = None
    human_label_low: Money = 0.05
    human_label_high: Money = 1.50


class Budget(StrictModel, error=RecipeError):
    """What a run may spend at most; before it would spend more it pauses, and can be gone on with.

    Attributes:
        money: by the prices in `costs` and in the models' `engine_args`.
        tokens: computed and generated, by all engines.
        gpu_hours: of all GPUs together; on a machine without any, hours of the machine.
    """

    money: Money | None = None
    tokens: Count | None = None
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
