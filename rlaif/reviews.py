"""The critic made durable: what it makes of the picks and pairs, shard by shard.

    picked/sft, picked/pairs → critic → sft, pairs

RUN/data/picked/ keeps what was picked; RUN/kept_aside/ says what the critic dropped and why.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Engine
from rlaif.errors import DataError
from rlaif.evaluate.comparisons import about_whole, judge_comparisons
from rlaif.evaluate.scorecard import data_fingerprint
from rlaif.filters.critic import Critic, fit_critic, review_pairs, review_picks
from rlaif.journal import Stage, run_stage
from rlaif.judge_check import Checked
from rlaif.label.calibrate import Curve
from rlaif.label.method import Method
from rlaif.label.rows import Row
from rlaif.label.templates import load_template
from rlaif.recipe import Critic as Settings
from rlaif.recipe import Recipe
from rlaif.records import Drop, fingerprint
from rlaif.run_folder import RunFolder
from rlaif.stages import Progress, Verdicts, engine_notes, judged_records, silent


def store_reviews(
    run: RunFolder,
    recipe: Recipe,
    constitution: Constitution,
    samples: Stage,
    verdicts: Verdicts,
    picks: dict[str, Stage],
    engine: Engine,
    checked: Checked,
    progress: Progress = silent,
) -> dict[str, Stage]:
    """What of the picks and pairs the critic is sure of.

    Args:
        run: the run folder; the caller holds its lock.
        recipe: with a `critic` section.
        constitution: the one that the labels were made by.
        samples, verdicts: what was judged, and the judge's opinion: a pick is reviewed beside the
            record's other responses.
        picks: the stages "sft" and "pairs" as they were picked.
        engine: the critic.
        checked: the judge's margins on the gate's comparisons; the critic is calibrated on them.
        progress: is told of each finished shard.

    Returns:
        The stages "sft" and "pairs", by these names; where filters come behind them, they lie in
        RUN/data/reviewed/.

    Raises:
        DataError: too few comparisons to calibrate the critic on.
    """
    settings = recipe.critic
    assert settings is not None
    critic = _critic(run, recipe, settings, constitution, engine, checked)
    wanted = {
        "critic": critic.method.fingerprint(engine.identity),
        "check_method": critic.check_method.fingerprint(engine.identity),
        "constitution": constitution.fingerprint,
        "checks": [[check.id, check.fingerprint] for check in critic.checks],
        "judge_mode": critic.judge_mode,
        "clip": critic.clip,
        "min_decided": critic.min_decided,
        "curve": fingerprint(critic.curve.model_dump(mode="json")) if critic.curve else "",
        "min_confidence": settings.min_confidence,
    }
    place = "" if recipe.filter is None else "reviewed/"
    made = {name: Stage(run, f"{place}{name}", stage.schema) for name, stage in picks.items()}

    def review(name: str, shard: int) -> tuple[list[Row], list[Drop]]:
        rows = picks[name].read(shard).to_pylist()
        if name == "pairs":
            return review_pairs(rows, critic, settings.min_confidence)
        records = judged_records(samples, verdicts, shard)
        return review_picks(rows, records, critic, settings.min_confidence)

    for name, stage in made.items():
        shards = picks[name].shards()

        def make(shard: int, name: str = name, stage: Stage = stage) -> tuple[pa.Table, list[Drop]]:
            rows, drops = review(name, shard)
            return pa.Table.from_pylist(rows, schema=stage.schema), drops

        depends = [wanted | _seen(name, shard, samples, verdicts, picks) for shard in shards]
        run_stage(
            stage, list(zip(shards, depends, strict=True)), make, partial(engine_notes, engine),
            partial(_tell, progress, name, len(shards)),
        )  # fmt: skip
    return made


def _tell(progress: Progress, name: str, of: int, done: int) -> None:
    progress(f"critic: {name}", done, of)


def _seen(
    name: str, shard: int, samples: Stage, verdicts: Verdicts, picks: dict[str, Stage]
) -> dict[str, Any]:
    """What of the run a review has read: of a pick, all responses and what the judge said."""
    picked = {"picked": picks[name].digest(shard)}
    if name == "pairs":
        return picked
    said = [stage.digest(shard) for stage in verdicts.stages.values()]
    return picked | {"samples": samples.digest(shard), "verdicts": said}


def _critic(
    run: RunFolder,
    recipe: Recipe,
    settings: Settings,
    constitution: Constitution,
    engine: Engine,
    checked: Checked,
) -> Critic:
    folder = recipe.judge.templates
    method = Method(settings.mode, load_template(settings.mode, folder), recipe.judge.min_coverage)
    alone = Method("pointwise", load_template("pointwise", folder), recipe.judge.min_coverage)
    curve = _curve(run, recipe, constitution, engine, method, checked)
    checks = _checks(settings)
    return Critic(
        engine, method, alone, constitution, checks,
        recipe.judge.mode, recipe.judge.clip, recipe.pick.min_decided, curve,
    )  # fmt: skip


def _checks(settings: Settings) -> tuple[Principle, ...]:
    return () if settings.checks is None else Constitution.load(settings.checks).principles


def _curve(
    run: RunFolder,
    recipe: Recipe,
    constitution: Constitution,
    engine: Engine,
    method: Method,
    checked: Checked,
) -> Curve:
    """The critic's curve, fitted once for this judge and this critic."""
    key = fingerprint(
        [
            method.fingerprint(engine.identity), constitution.fingerprint, recipe.judge.clip,
            recipe.pick.min_decided, data_fingerprint(checked.comparisons), list(checked.margins),
        ]
    )  # fmt: skip
    file = run.root / "judge" / "critic.json"
    try:
        stored = json.loads(file.read_text("utf-8"))
        if stored["key"] == key:
            return Curve(**stored["curve"])
    except (OSError, ValueError, KeyError, ValidationError, DataError):
        pass  # it can be fitted again
    whole = [
        (c, margin)
        for c, margin in zip(checked.comparisons, checked.margins, strict=True)
        if about_whole(c, constitution)
    ]
    asked, margins = [c for c, _ in whole], [margin for _, margin in whole]
    seen = judge_comparisons(
        asked, engine, constitution, method,
        clip=recipe.judge.clip, min_decided=recipe.pick.min_decided,
    )  # fmt: skip
    curve = fit_critic([c.better for c in asked], margins, [j.margin for j in seen])
    found = {"key": key, "curve": curve.model_dump(mode="json")}
    run.write_text(file, json.dumps(found, indent=2) + "\n")
    return curve
