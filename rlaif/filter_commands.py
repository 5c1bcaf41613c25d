"""What `rlaif filter`, `anchor fit` and `density fit` load: a recipe, or options in its place."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from rlaif import pipeline
from rlaif.anchors import compared_anchors, load_anchors
from rlaif.embed import Embedder
from rlaif.errors import RecipeError
from rlaif.filter_data import filter_data
from rlaif.filters.anchor_band import anchor_set, propose
from rlaif.filters.chain import Filtered
from rlaif.filters.density import fit_density
from rlaif.intervals import rate
from rlaif.progress import progress_bars
from rlaif.recipe import Anchors, Embedding, Filter, Recipe
from rlaif.run_folder import RunFolder


def needed(recipe: Path | None) -> Path:
    """The recipe's file.

    Raises:
        RecipeError: there is none.
    """
    if recipe is None:
        raise RecipeError("nothing to filter", mend="name a recipe, or --data and --anchors")
    return recipe


def refuse_without_data(options: Mapping[str, object]) -> None:
    """Nothing but its recipe says how a labelled run is filtered.

    Args:
        options: what was given, by name; None was not.

    Raises:
        RecipeError: one was.
    """
    for name, value in options.items():
        if value is not None:
            raise RecipeError(
                "acts only with --data", key=f"--{name}", value=str(value),
                mend="a labelled run is filtered as its recipe says: change that, or name --data",
            )  # fmt: skip


def filter_recipe(file: Path) -> str:
    """Filter a labelled run as the recipe now says; what came of it, in a few lines."""
    recipe = Recipe.load(file)
    with progress_bars() as progress:
        counts = pipeline.filter_run(recipe, progress)
    lines = [f"{counts.picks} picks and {counts.pairs} pairs are kept"]
    for stage in ("sft", "pairs"):
        reasons = counts.dropped.get(stage, {})
        lines += [f"  kept aside from {stage}: {n} × {reason}" for reason, n in reasons.items()]
    return "\n".join([*lines, f"figures in {Path(recipe.run) / 'filter'}"])


def filter_any(
    recipe: Path | None,
    data: str,
    anchors: str | None,
    compare: str | None,
    embedding: str | None,
    out: Path,
) -> str:
    """Filter a data set; what came of it, in a few lines."""
    gold, settings, embeds, seed = _given(recipe, anchors, compare, embedding)
    return told(filter_data(_source(data), gold, settings, embeds, out, seed))


def propose_band(
    recipe: Path | None, anchors: str | None, compare: str | None, embedding: str | None
) -> str:
    """The band that the anchors propose, on one screen."""
    gold, settings, embeds, seed = _given(recipe, anchors, compare, embedding)
    rows, _ = load_anchors(gold)
    embed = Embedder(**embeds.model_dump())
    found = anchor_set(compared_anchors(rows, settings.compare, gold), embed)
    return str(propose(found, settings.low_quantile, settings.high_quantile, seed))


def fit_density_files(informative: Path, empty: Path, out: Path, embedding: str | None) -> str:
    """Fit the classifier of `filter.density` and write it; how well it does on held-out sentences.

    Raises:
        DataError: a file that cannot be read, or too few sentences.
    """
    embed = Embedder(**_embedding(embedding).model_dump())
    kinds = [_sentences(file) for file in (informative, empty)]
    cut = [len(kind) - len(kind) // 5 for kind in kinds]
    tried = fit_density(kinds[0][: cut[0]], kinds[1][: cut[1]], embed)
    right = [
        bool((score > 0) == says)
        for kind, at, says in zip(kinds, cut, (True, False), strict=True)
        for score in tried.scores(embed(kind[at:]).vectors)
    ]
    RunFolder(out.parent).create()
    fit_density(kinds[0], kinds[1], embed).save(out)
    counts = f"{len(kinds[0])} and {len(kinds[1])} sentences"
    return f"{counts}; right on a held-out fifth: {rate(right)}\n{out}"


def _sentences(file: Path) -> list[str]:
    """The sentences of a file, each once, in an order that says nothing."""
    anchors, _ = load_anchors(Anchors(path=str(file)))
    texts = sorted({part for row in anchors for part in row if part.strip()})
    random.Random(0).shuffle(texts)
    return texts


def _embedding(model: str | None) -> Embedding:
    return Embedding() if model is None else Embedding(model=model)


def told(found: Filtered) -> str:
    """What was kept, what was dropped by reason, and what the drift was."""
    figures = found.figures
    lines = [f"{figures['kept']} of {figures['rows']} rows are kept"]
    lines += [f"  kept aside: {n} × {reason}" for reason, n in figures["dropped"].items()]
    if figures["cut_by_the_embedding_model"]:
        lines.append(
            f"of {figures['cut_by_the_embedding_model']} texts the embedding model read only the "
            "beginning"
        )
    return "\n".join(lines)


def _given(
    recipe: Path | None, anchors: str | None, compare: str | None, embedding: str | None
) -> tuple[Anchors, Filter, Embedding, int]:
    """Anchors, filters, embedding model and seed: the recipe's, and options over them."""
    loaded = None if recipe is None else Recipe.load(recipe)
    gold = loaded.anchors if loaded is not None and anchors is None else None
    if anchors is not None:
        gold = _source(anchors)
    if gold is None:
        raise RecipeError(
            "no anchors", mend="name human texts: --anchors, or an `anchors` section in the recipe"
        )
    settings = (loaded.filter if loaded is not None else None) or Filter()
    if compare is not None:
        settings = Filter(**settings.model_dump() | {"compare": compare})
    embeds = _embedding(embedding) if loaded is None or embedding is not None else loaded.embedding
    return gold, settings, embeds, 0 if loaded is None else loaded.seed


def _source(name: str) -> Anchors:
    """A file or folder that is there; anything else is a name on the hub."""
    return Anchors(path=name) if Path(name).exists() else Anchors(dataset=name)
