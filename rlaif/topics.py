"""What `rlaif topics` loads and writes: a recipe's prompts as a map, and prompts for its gaps.

RUN/topics/  topics.json, topics.png; with gaps filled also prompts.jsonl and kept_aside.jsonl
RUN/data/gaps/  what the generator answered, a shard a round, so that nothing is asked twice
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlaif.anchors import compared_anchors, load_anchors
from rlaif.embed import Embedded, Embedder
from rlaif.engines.load import load_engine
from rlaif.engines.protocol import Sampling
from rlaif.errors import RecipeError
from rlaif.prompts.gaps import Filled, Filling, fill_gaps
from rlaif.prompts.kept_answers import KeptAnswers
from rlaif.prompts.load import load_prompts
from rlaif.prompts.topics import TopicMap, topic_map
from rlaif.prompts.topics_picture import picture
from rlaif.recipe import Recipe
from rlaif.records import Record
from rlaif.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Topics:
    """What was found.

    Attributes:
        before: the map of the recipe's prompts.
        filled: the new prompts; None where none were asked for.
        after: the map with them.
        truncated: prompts of which the embedding model read only the beginning.
        folder: where all of it was written.
    """

    before: TopicMap
    filled: Filled | None
    after: TopicMap | None
    truncated: int
    folder: Path


def embedder(recipe: Recipe, run: RunFolder) -> Embedder:
    """The recipe's embedding model, with its cache in the run folder."""
    return Embedder(**recipe.embedding.model_dump(), cache=run.root / "embeddings")


def topics(recipe: Recipe, *, fill: bool = False) -> Topics:
    """Map a recipe's prompts, over its anchors if it has any; and fill the gaps on request.

    Raises:
        RlaifError: prompts, anchors or models that cannot be used; gaps without anchors.
    """
    run = RunFolder(Path(recipe.run)).create()
    if fill and recipe.anchors is None:
        raise RecipeError(
            "gaps are regions that anchors cover and prompts do not", key="anchors",
            mend="name human texts in an `anchors` section",
        )  # fmt: skip
    prompts = [r.prompt[-1].text for r in load_prompts(recipe.prompts) if isinstance(r, Record)]
    anchors = _anchors(recipe)
    embed = embedder(recipe, run)
    own, gold = embed(prompts), embed(anchors)
    before = _map(recipe, prompts, own, anchors, gold)
    filled = _filled(recipe, run, prompts, anchors, embed, before) if fill else None
    after = None
    if filled is not None:
        prompts = [*prompts, *(new.text for new in filled.new)]
        own = embed(prompts)
        after = topic_map(
            prompts, own.vectors, before.cells,
            anchors=anchors, anchor_vectors=gold.vectors, seed=recipe.seed,
        )  # fmt: skip
    found = Topics(before, filled, after, int(own.truncated.sum()), run.root / "topics")
    _write(run, found, prompts)
    picture(
        after or before, own.vectors, found.folder / "topics.png",
        anchor_vectors=gold.vectors[gold.usable] if anchors else None, seed=recipe.seed,
    )  # fmt: skip
    return found


def _anchors(recipe: Recipe) -> list[str]:
    if recipe.anchors is None:
        return []
    rows, _ = load_anchors(recipe.anchors)
    return compared_anchors(rows, "prompt", recipe.anchors)


def _map(
    recipe: Recipe, prompts: Sequence[str], own: Embedded, anchors: Sequence[str], gold: Embedded
) -> TopicMap:
    return topic_map(
        prompts, own.vectors, recipe.topics.cells,
        anchors=anchors, anchor_vectors=gold.vectors if anchors else None, seed=recipe.seed,
    )  # fmt: skip


def _filled(
    recipe: Recipe,
    run: RunFolder,
    prompts: Sequence[str],
    anchors: Sequence[str],
    embed: Embedder,
    before: TopicMap,
) -> Filled:
    wanted = recipe.topics
    settings = Filling(
        cells=wanted.cells,
        evenness=wanted.evenness,
        calls=wanted.calls,
        tokens=wanted.tokens,
        sampling=Sampling(temperature=wanted.temperature, max_tokens=wanted.max_tokens),
        templates=recipe.judge.templates,
    )
    generator = wanted.generator or recipe.teacher
    with run.lock(), closing(load_engine(generator, run.engines)) as engine:
        return fill_gaps(
            prompts, anchors, engine, embed, settings, recipe.seed, before.cells, KeptAnswers(run)
        )


def _write(run: RunFolder, found: Topics, prompts: Sequence[str]) -> None:
    told: dict[str, Any] = {"before": _told(found.before)}
    if found.filled is not None and found.after is not None:
        told |= {"after": _told(found.after), "stopped": found.filled.stopped,
                 "calls": found.filled.calls, "tokens": found.filled.tokens,
                 "rounds": [asdict(one) for one in found.filled.rounds]}  # fmt: skip
        rows = ({"prompt": prompt} for prompt in prompts)
        run.write_text(found.folder / "prompts.jsonl", _lines(rows))
        run.write_text(found.folder / "kept_aside.jsonl", _lines(map(asdict, found.filled.drops)))
    run.write_text(found.folder / "topics.json", json.dumps(told, indent=2) + "\n")


def _told(found: TopicMap) -> dict[str, Any]:
    return {
        "evenness": asdict(found.evenness),
        "anchors": None if found.anchors is None else asdict(found.anchors),
        "regions": [asdict(region) for region in found.regions],
        "without_embedding": len(found.drops),
    }


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
