"""The filters made durable: what they make of a run's picks and pairs.

    picked/sft, picked/pairs → filters/chain.py → sft, pairs

RUN/data/picked/ (or reviewed/, behind a critic) keeps what came in; RUN/kept_aside/ says what was
dropped and why; RUN/filter/ has the figures. A distribution is that of a whole batch, so a shard
depends on all that came in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlaif.anchors import compared_anchors, load_anchors
from rlaif.embed import Embedder
from rlaif.filters.chain import Filtered, Fitted, filter_rows, fit_filters, nothing_left
from rlaif.filters.row_texts import with_completion
from rlaif.journal import Stage, run_stage
from rlaif.recipe import Filter, Recipe
from rlaif.records import Drop, fingerprint
from rlaif.run_folder import RunFolder
from rlaif.stages import Progress, silent

_Place = tuple[int, int]
_Batch = tuple[dict[_Place, Drop], dict[_Place, str]]
"""By shard and place: the drop of each row that goes, and what is left of a completion."""


def store_filtered(
    run: RunFolder, recipe: Recipe, picks: dict[str, Stage], progress: Progress = silent
) -> dict[str, Stage]:
    """What the recipe's filters leave of the picks and pairs.

    Args:
        run: the run folder; the caller holds its lock.
        recipe: with a `filter` and an `anchors` section.
        picks: the stages "sft" and "pairs" as they came in.
        progress: is told of each finished shard.

    Returns:
        The stages "sft" and "pairs" that are trained on, by these names.

    Raises:
        DataError: anchors that cannot be used, or nothing is left of rows that were there.
    """
    settings, source = recipe.filter, recipe.anchors
    assert settings is not None and source is not None
    rows, drops = load_anchors(source)
    anchors = compared_anchors(rows, settings.compare, source)
    embed = Embedder(**recipe.embedding.model_dump(), cache=run.root / "embeddings")
    wanted = {
        "filter": settings.model_dump(mode="json") | _classifier(settings),
        "anchors": fingerprint(anchors),
        "embedding": dict(embed.identity),
        "seed": recipe.seed,
    }
    _keep_anchor_drops(run, drops)

    @cache  # only where there is something to do
    def fitted() -> Fitted:
        return fit_filters(settings, anchors, embed, recipe.seed)

    return {
        name: _filter_stage(run, name, stage, wanted, fitted, embed, progress)
        for name, stage in picks.items()
    }


def _filter_stage(
    run: RunFolder,
    name: str,
    picked: Stage,
    wanted: dict[str, Any],
    fitted: Callable[[], Fitted],
    embed: Embedder,
    progress: Progress,
) -> Stage:
    made = Stage(run, name, picked.schema)
    shards = picked.shards()
    depends = wanted | {"picked": [picked.digest(shard) for shard in shards]}

    @cache
    def batch() -> _Batch:
        return _of_all_shards(run, name, picked, fitted(), embed)

    def make(shard: int) -> tuple[pa.Table, list[Drop]]:
        rows = picked.read(shard).to_pylist()
        drops, shortened = batch()
        kept = [
            with_completion(row, shortened[shard, i]) if (shard, i) in shortened else row
            for i, row in enumerate(rows)
            if (shard, i) not in drops
        ]
        gone = [drops[shard, i] for i in range(len(rows)) if (shard, i) in drops]
        return pa.Table.from_pylist(kept, schema=made.schema), gone

    run_stage(
        made, [(shard, depends) for shard in shards], make,
        finished=lambda done: progress(f"filter: {name}", done, len(shards)),
    )  # fmt: skip
    return made


def _of_all_shards(
    run: RunFolder, name: str, picked: Stage, fitted: Fitted, embed: Embedder
) -> _Batch:
    places, rows = [], []
    for shard in picked.shards():
        for i, row in enumerate(picked.read(shard).to_pylist()):
            places.append((shard, i))
            rows.append(row)
    found = filter_rows(rows, [row["record_id"] for row in rows], fitted, embed)
    run.write_text(run.root / "filter" / f"{name}.json", _told(found))
    if rows and not found.kept:
        raise nothing_left(found, f"filter ({name})")
    gone = sorted(set(range(len(rows))) - set(found.kept))
    drops = {places[i]: drop for i, drop in zip(gone, found.drops, strict=True)}
    density = fitted.settings.density
    if name != "sft" or density is None or not density.remove:
        return drops, {}  # a preference is about the texts that were judged
    return drops, {places[i]: text for i, text in found.shortened.items()}


def _classifier(settings: Filter) -> dict[str, str]:
    """What a file of the settings holds: its name may stay when that changes."""
    if settings.density is None:
        return {}
    return {"classifier": sha256(Path(settings.density.classifier).read_bytes()).hexdigest()}


def _told(found: Filtered) -> str:
    return json.dumps(dict(found.figures), indent=2) + "\n"


def _keep_anchor_drops(run: RunFolder, drops: list[Drop]) -> None:
    if drops:
        lines = "".join(json.dumps(asdict(drop)) + "\n" for drop in drops)
        run.write_text(run.root / "filter" / "anchors_kept_aside.jsonl", lines)
