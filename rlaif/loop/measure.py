"""What a finished round has come to: read from its folder, and asked of its new student.

RUN/rounds/NN → labels, scores, win rate, metric, collapse → Figures → figures.json
"""

from __future__ import annotations

import importlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from rlaif.anchors import compared_anchors, load_anchors
from rlaif.asked import evaluation_verdicts, judged_verdicts
from rlaif.constitution import Constitution
from rlaif.embed import Embedder
from rlaif.engines.load import load_engine
from rlaif.errors import RecipeError
from rlaif.evaluate.collapse import RoundTexts, Watch, watch
from rlaif.evaluate.winrate import WinRate
from rlaif.filters.row_texts import RowTexts
from rlaif.intervals import bootstrap
from rlaif.journal import Stage
from rlaif.judge_check import would_pass
from rlaif.label.method import Method
from rlaif.loop.figures import Figure, Figures
from rlaif.pipeline import read_records, trained_model
from rlaif.recipe import Recipe
from rlaif.records import Record
from rlaif.run_folder import RunFolder
from rlaif.stages import Verdicts
from rlaif.tables import SAMPLES

Metric = Callable[[Record, Constitution], Mapping[str, Sequence[float]]]
"""A record's answers → their values, 0 to 1 as a rule, by the principle's id."""

_TOKENS_A_TEXT = 8
"""Tokens that diversity is measured on, for each text: of so many that any round has them."""


def measure_round(
    loop: Recipe,
    recipe: Recipe,
    run: RunFolder,
    *,
    number: int,
    attempt: int,
    judge: Literal["teacher", "student"],
    stage: str,
    won: WinRate | None,
    embeddings: Path,
) -> tuple[Figures, Figures | None]:
    """The figures of a round, and those of the student that it began with.

    Args:
        loop: the loop's recipe.
        recipe: the round's.
        run: its folder; the caller holds its lock.
        number, attempt: the round's.
        judge: who labelled it.
        stage: the training whose model is measured.
        won: the comparison with the student that it began with; None where there is none.
        embeddings: a cache of vectors.

    Raises:
        RlaifError: a metric that is not there, anchors that cannot be used, and so on.
    """
    constitution = Constitution.load(recipe.constitution)
    measured = recipe.model_copy(update={"evaluate": loop.evaluate})
    told = {}
    for who in ("base", stage):
        told[who] = _of_answers(loop, run, constitution, who, embeddings) if won else {}
    accuracy, passes = _student_as_judge(loop, recipe, run, constitution, stage)
    figures = Figures(
        round=number,
        attempt=attempt,
        judge=judge,
        judge_accuracy=None if recipe.gate is None else _judge_accuracy(run),
        student_accuracy=accuracy,
        student_passes=passes,
        labels=_labels(run),
        scores=_scores(run, recipe),
        win_rate=None if won is None else Figure.of(won.win_rate, won.low, won.high),
        length_controlled=_finite(None if won is None else won.length_controlled),
        mean_tokens=_finite(None if won is None else won.mean_tokens_trained),
        **told[stage],
        **_kept(run, measured, constitution, stage, 1),
    )
    if won is None:
        return figures, None
    kept = _kept(run, measured, constitution, stage, 0)
    tokens = _finite(won.mean_tokens_base)
    return figures, Figures(round=number - 1, mean_tokens=tokens, **told["base"], **kept)


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _judge_accuracy(run: RunFolder) -> Figure | None:
    file = run.root / "judge" / "scorecard.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text("utf-8"))["scorecard"]["accuracy"]
    return None if not found["rows"] else Figure.of(found["value"], found["low"], found["high"])


def _student_as_judge(
    loop: Recipe, recipe: Recipe, run: RunFolder, constitution: Constitution, stage: str
) -> tuple[Figure | None, bool | None]:
    """How often the new student is right as a judge, where it may become one; does it pass?"""
    assert loop.loop is not None
    if recipe.gate is None or loop.loop.judge == "teacher":
        return None, None
    with closing(load_engine(trained_model(run, recipe, stage), run.engines)) as student:
        card, passes = would_pass(recipe, constitution, student, Method.load(recipe.judge))
    right = card.accuracy
    return Figure.of(right.value, right.low, right.high), passes


def _labels(run: RunFolder) -> dict[str, Any] | None:
    """The counts that labelling logged last."""
    found = None
    for line in run.log_file.read_text("utf-8").splitlines() if run.log_file.is_file() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == "labelled":
            found = event
    return None if found is None else {k: found[k] for k in (*_COUNTS, "dropped")}


_COUNTS = ("prompts", "responses", "verdicts", "abstentions", "picks", "pairs")


def _scores(run: RunFolder, recipe: Recipe) -> tuple[int, ...]:
    """How many of the judge's probabilities lie in each tenth."""
    counts = np.zeros(10, int)
    for said in _tables(judged_verdicts(run, recipe)):
        log_odds = said["log_odds"].drop_null().to_numpy()
        probability = 1 / (1 + np.exp(-np.clip(log_odds, -50, 50)))
        counts += np.bincount(np.minimum((probability * 10).astype(int), 9), minlength=10)
    return tuple(int(n) for n in counts)


def _tables(verdicts: Verdicts) -> Iterator[pa.Table]:
    return (stage.read(n) for stage in verdicts.stages.values() for n in stage.shards())


def _kept(
    run: RunFolder, measured: Recipe, constitution: Constitution, stage: str, side: int
) -> dict[str, Any]:
    """Judged share of the principles that one side's answers keep; where each was judged alone."""
    if measured.evaluate.mode != "pointwise" or measured.evaluate.prompts is None:
        return {}
    kept, values, groups = defaultdict[str, list[bool]](list), list[bool](), list[str]()
    ids = {p.fingerprint: p.id for p in constitution.principles}
    for table in _tables(evaluation_verdicts(run, measured, stage)):
        for row in table.to_pylist():
            if row["response"] == side and row["log_odds"] is not None:
                kept[ids[row["principle"]]].append(row["log_odds"] > 0)
                values.append(row["log_odds"] > 0)
                groups.append(row["record_id"])
    every = np.array(values, float)
    if not len(every):
        return {}
    low, high = bootstrap(lambda rows: float(every[rows].mean()), groups)
    by_principle = {id_: float(np.mean(column)) for id_, column in sorted(kept.items())}
    return {"kept": Figure.of(float(every.mean()), low, high), "kept_by_principle": by_principle}


def _of_answers(
    loop: Recipe, run: RunFolder, constitution: Constitution, who: str, embeddings: Path
) -> dict[str, Any]:
    """What is seen in the answers to the evaluation prompts: the metric, and the collapse watch."""
    records = read_records(Stage(run, f"evaluate/samples/{who}", SAMPLES))
    return _metric(loop, records, constitution) | {
        "collapse": _collapse(loop, records, who, embeddings)
    }


def load_metric(loop: Recipe) -> Metric | None:
    """The recipe's metric.

    Raises:
        RecipeError: there is no such function.
    """
    assert loop.loop is not None
    if (named := loop.loop.metric) is None:
        return None
    module, _, name = named.partition(":")
    try:
        found: Metric = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"no such function: {error}", key="loop.metric", value=named,
            mend='write "package.module:function"',
        ) from error  # fmt: skip
    return found


def _metric(loop: Recipe, records: Sequence[Record], constitution: Constitution) -> dict[str, Any]:
    metric = load_metric(loop)
    if metric is None:
        return {}
    columns, values, groups = defaultdict[str, list[float]](list), list[float](), list[str]()
    for record in records:
        for id_, column in metric(record, constitution).items():
            columns[id_] += column
            values += column
            groups += [record.id] * len(column)
    every = np.array(values, float)
    if not len(every):
        return {}
    low, high = bootstrap(lambda rows: float(every[rows].mean()), groups)
    by_principle = {id_: float(np.mean(column)) for id_, column in sorted(columns.items())}
    mean = float(every.mean())
    return {"metric": Figure.of(mean, low, high), "metric_by_principle": by_principle}


def _collapse(
    loop: Recipe, records: Sequence[Record], who: str, embeddings: Path
) -> dict[str, Any] | None:
    if loop.anchors is None:
        return None
    what = "response" if loop.filter is None else loop.filter.compare
    rows, _ = load_anchors(loop.anchors)
    anchors = compared_anchors(rows, what, loop.anchors)
    texts = [
        RowTexts("\n".join(m.text for m in record.prompt), response.text).compared(what)
        for record in records
        for response in record.responses
    ]
    embed = Embedder(**loop.embedding.model_dump(), cache=embeddings)
    size = min(len(anchors), len(texts))
    settings = Watch(texts=size, tokens=_TOKENS_A_TEXT * size, seed=loop.seed)
    if len(anchors) < settings.fewest_texts:
        return None
    gold, found = embed(anchors), embed(texts)
    own, row = watch(
        [RoundTexts(who, texts, found.vectors)],
        RoundTexts("anchors", anchors, gold.vectors), settings,
    )  # fmt: skip
    return row.as_dict() | {"anchors": own.as_dict()}
