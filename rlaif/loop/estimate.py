"""`rlaif estimate RECIPE`: what each stage of a loop will take, before anything runs.

    recipe → probe.py (a round on a few prompts) → scale.py → rows of all rounds → RUN/estimate.json

What the books count is what is foreseen: requests, tokens, seconds and money of every stage's
process. Later rounds are the first with more rows and with answers as long as those that were
picked; how a student will change besides is not known before it is trained.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlaif.loop import round_recipe
from rlaif.loop.child import signals
from rlaif.loop.places import LoopFolder
from rlaif.loop.probe import Probe, probe
from rlaif.loop.probe_rows import also_trained_on
from rlaif.loop.scale import (
    longer_answers,
    longer_judged,
    parts,
    texts_read,
    training,
)
from rlaif.loop.spending import Spent, times
from rlaif.recipe import Loop, Recipe
from rlaif.train.plan import HELD_OUT, evaluates

_LABELLING = ("prompts", "sample", "judge", "filter")


@dataclass(frozen=True, slots=True)
class Row:
    """A stage of a round: what it will take. The seed's round is -1."""

    round: int
    stage: str
    spent: Spent


@dataclass(frozen=True, slots=True)
class LabelCost:
    """What an accepted label costs.

    Attributes:
        tokens_each: of sampling, judging and filtering, over the labels that come through.
        money_each: likewise; None without prices.
        pass_rate: share of the prompts that bring a label.
        human_low, human_high: of one preference by a person.
    """

    tokens_each: float
    money_each: float | None
    pass_rate: float
    human_low: float
    human_high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a loop will take.

    Attributes:
        rows: in the order in which stages run.
        label: the cost of a label.
        probe_seconds: that the probe itself took.
    """

    rows: tuple[Row, ...]
    label: LabelCost
    probe_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """As RUN/estimate.json has it."""
        rows = [{"round": r.round, "stage": r.stage, **asdict(_whole(r.spent))} for r in self.rows]
        return {"rows": rows, "label": asdict(self.label), "probe_seconds": self.probe_seconds}


def estimate(
    recipe_file: Path, probe_prompts: int = 32, say: Callable[[str], None] = print
) -> Estimate:
    """Foresee what a loop will take, and write it to RUN/estimate.json.

    Args:
        recipe_file: with or without a `loop` section; without one, it is one round.
        probe_prompts: prompts that the probe asks, evenly drawn; more tell more surely.
        say: is told what happens.

    Raises:
        RlaifError: the recipe cannot be used, or a stage of the probe failed as it would in the
            loop; a judge under its gate and a budget that is too small among them.
        InterruptedLoopError: a signal asked to end.
    """
    recipe = Recipe.load(recipe_file)
    if recipe.loop is None:
        recipe = recipe.model_copy(update={"loop": Loop(rounds=1)})
    folder = LoopFolder(Path(recipe.run).absolute())
    scratch = folder.root / "estimate"
    with folder.run.lock(), signals(again="it measures anew"):
        found = probe(recipe_file, recipe, scratch, probe_prompts, say)
        made = scaled(recipe, found)
        folder.run.write_text(folder.estimate, json.dumps(made.as_dict(), indent=2) + "\n")
        shutil.rmtree(scratch)  # the models of the probe are as large as the loop's
    return made


def scaled(recipe: Recipe, found: Probe) -> Estimate:
    """The whole loop, made of a probe."""
    loop = recipe.loop
    assert loop is not None
    scaling = _Scaling(recipe, found)
    rows = [Row(-1, "seed", scaling.seed())] if loop.seeds is not None else []
    for number in range(loop.rounds):
        rows += scaling.round(number)
    priced = [replace(row, spent=_with_devices(recipe, row.spent)) for row in rows]
    probed = sum(float(line["seconds"]) for lines in found.lines.values() for line in lines)
    return Estimate(tuple(priced), _label_cost(recipe, scaling, priced), round(probed, 3))


def _whole(spent: Spent) -> Spent:
    """Requests and tokens are whole numbers."""
    return Spent(
        round(spent.seconds, 3), round(spent.device_seconds, 3), round(spent.requests),
        round(spent.computed_tokens), round(spent.generated_tokens), round(spent.money, 6),
    )  # fmt: skip


def _with_devices(recipe: Recipe, spent: Spent) -> Spent:
    an_hour = recipe.costs.gpu_hour or 0.0
    return replace(spent, money=spent.money + spent.device_seconds / 3600 * an_hour)


def _label_cost(recipe: Recipe, scaling: _Scaling, rows: list[Row]) -> LabelCost:
    found, loop = scaling.found, recipe.loop
    assert found.labels is not None and loop is not None
    spent = sum((r.spent for r in rows if r.stage in _LABELLING), Spent())
    asked = sum(scaling.prompts(number) for number in range(loop.rounds))
    labels = asked * found.labels.labels / found.prompts
    return LabelCost(
        tokens_each=spent.tokens / labels if labels else math.inf,
        money_each=(spent.money / labels if labels else math.inf) if _priced(recipe) else None,
        pass_rate=found.labels.labelled / found.prompts,
        human_low=recipe.costs.human_label_low,
        human_high=recipe.costs.human_label_high,
    )


def _priced(recipe: Recipe) -> bool:
    models = [recipe.student, recipe.teacher]
    if recipe.critic is not None:
        models.append(recipe.critic.model)
    return recipe.costs.gpu_hour is not None or any("prices" in m.engine_args for m in models)


@dataclass(frozen=True, slots=True)
class _Scaling:
    """A probe, scaled stage by stage."""

    recipe: Recipe
    found: Probe

    def prompts(self, number: int) -> float:
        """Prompts of a round."""
        given: int = self.found.counts["rounds"][number]
        if self.found.gaps is None or number == 0:
            return given
        return given + gap_calls(self.recipe, self.found.gaps)[1]

    def seed(self) -> Spent:
        """The fine-tuning before the first round."""
        probe = self.found.trained["seed"]
        return training(self.recipe.train.sft or {}, probe, probe.given, self._gpu_hour)

    def round(self, number: int) -> list[Row]:
        """The stages of a round, in order."""
        found, rows = self.found, []
        if found.gaps is not None and number:
            rows.append(Row(number, "prompts", self._gaps(found.gaps)))
        for stage in ("sample", "judge", "filter"):
            if stage in found.lines:
                rows.append(Row(number, stage, self._labelling(stage, number)))
        for stage in round_recipe.training_stages(self.recipe, number):
            block = getattr(self.recipe.train, stage)
            spent = training(block, found.trained[stage], self.rows(stage, number), self._gpu_hour)
            rows.append(Row(number, stage, spent))
        return [*rows, Row(number, "evaluate", self._evaluate(number))]

    def rows(self, stage: str, number: int) -> float:
        """Rows that a stage of a round is trained on."""
        loop, train, found = self.recipe.loop, self.recipe.train, self.found
        assert loop is not None and found.labels is not None
        first = 0 if loop.data == "accumulate" else number
        asked = sum(self.prompts(n) for n in range(first, number + 1))
        rows = asked * found.labels.of(stage) / found.prompts + also_trained_on(self.recipe, stage)
        if stage == "sft" and loop.seeds is not None and loop.seeds.repeat:
            rows += found.trained["seed"].given
        if stage == "dpo":
            rows += found.judgements
        choice = {"dpo": train.dpo_pairs, "reward": train.reward_pairs}.get(stage)
        if choice is not None and choice.limit is not None:
            rows = min(rows, choice.limit)
        blocks = (train.sft, train.dpo, train.reward)
        held_out = any(evaluates(block) for block in blocks if block)
        return rows * (1 - HELD_OUT) if held_out else rows

    @property
    def _gpu_hour(self) -> float:
        return self.recipe.costs.gpu_hour or 0.0

    def _growth(self, number: int) -> float:
        """How long the answers are of the student that a round begins with."""
        assert self.found.labels is not None
        return self.found.labels.growth(self.recipe) if number else 1.0

    def _labelling(self, stage: str, number: int) -> Spent:
        found, labels = self.found, self.found.labels
        assert labels is not None
        units, growth = self.prompts(number), self._growth(number)
        read = texts_read(self.recipe.judge.mode, self.recipe.sample.n) * labels.tokens
        spent = Spent()
        given = parts(found.lines[stage], found.prompts, found.shard, self._gpu_hour)
        for name, part in given.items():
            sampled = name in ("samples", "revised")
            by = longer_answers(part, growth) if sampled else longer_judged(part, growth, read)
            spent += by.of(units)
        return spent + self._embedding(number) if stage == "filter" else spent

    def _embedding(self, number: int) -> Spent:
        """What embedding more texts than the probe's takes; anchors are embedded once."""
        found, labels = self.found, self.found.labels
        assert labels is not None
        first, again = found.filter_again
        seconds, anchors = max(0.0, first - again), found.counts["anchors"]
        rows = labels.picked * self.prompts(number) / found.prompts
        texts = rows if number else rows + anchors
        more = seconds * (texts / max(1, labels.picked + anchors) - 1)
        return times(Spent(1.0, self._devices, 0, 0, 0, 0.0), more)

    @property
    def _devices(self) -> float:
        """Device seconds of a second."""
        line = next(line for lines in self.found.lines.values() for line in lines)
        return float(line["device_seconds"] / (line["seconds"] or 1.0))

    def _evaluate(self, number: int) -> Spent:
        found, labels, settings = self.found, self.found.labels, self.recipe.evaluate
        assert labels is not None
        shard = -(-found.evaluated // 2)
        given = parts(found.lines["evaluate"], found.evaluated, shard, self._gpu_hour)
        before, after = self._growth(number), self._growth(1)
        read = texts_read(settings.mode, 2) * settings.n * labels.tokens
        spent = Spent()
        for name, part in given.items():
            if name.startswith("evaluate/samples/"):
                part = longer_answers(part, before if name.endswith("/base") else after)
            elif name:
                part = longer_judged(part, (before + after) / 2, read)
            spent += part.of(found.counts["evaluate"])
        return spent

    def _gaps(self, told: Mapping[str, Any]) -> Spent:
        start, each = told["start"], told["each"]
        more = times(each, gap_calls(self.recipe, told)[0])
        found: Spent = start + more
        return found


def gap_calls(recipe: Recipe, told: Mapping[str, Any]) -> tuple[float, float]:
    """Questions that filling the gaps among the prompts takes, and prompts that it brings.

    Args:
        recipe: with the number of questions allowed.
        told: as `rlaif topics` wrote it: the regions, and how many of a few answers were kept.
    """
    from rlaif.prompts.strata import level_for  # it imports scikit-learn and faiss

    regions = [r for r in told["before"]["regions"] if r["expected"] > 0]
    have = np.array([r["count"] for r in regions], np.int64)
    missing = int(np.maximum(0, level_for(have, recipe.topics.evenness) - have).sum())
    asked = sum(r["asked"] for r in told["rounds"])
    rate = (sum(r["kept"] for r in told["rounds"]) + 1) / (asked + 1)
    calls = min(recipe.topics.calls, math.ceil(missing / rate))
    return calls, min(missing, calls * rate)
