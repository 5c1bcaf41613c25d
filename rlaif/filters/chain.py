"""The filters over embeddings in a row: what a recipe's `filter` section makes of training rows.

    rows → texts → (fault) → anchors → density → near-duplicates → drift → kept, dropped and why

It decides on texts, not on rows: of pairs with the same compared text all stay or none, and a
distribution counts each text once. A plain function: rlaif/filtering.py makes it durable for a
run, and rlaif/filter_data.py runs it over any preference data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlaif.embed import Embedded, Embedder, Vectors
from rlaif.errors import DataError
from rlaif.filters.anchor import filter_by_anchors
from rlaif.filters.anchor_band import AnchorSet, Band, anchor_set, fit_band
from rlaif.filters.drift import FEWEST
from rlaif.filters.drift_prune import prune
from rlaif.filters.duplicates import near_duplicates
from rlaif.filters.fluency import Fluency, fit_fluency
from rlaif.filters.row_texts import RowTexts, row_texts
from rlaif.prompts.rows import BadRow
from rlaif.recipe import Drift as DriftSettings
from rlaif.recipe import Filter
from rlaif.records import Drop

NEVER = 2.0
"""An overlap that no two texts have."""

Reason = tuple[str, str]
"""Why a text is dropped, and the detail."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What the filters learned from the anchors.

    Attributes:
        settings: of the recipe.
        anchors: embedded.
        band: fitted to them, or the recipe's own.
        fluency: None where word salad is not looked for.
        seed: of all that is drawn.
    """

    settings: Filter
    anchors: AnchorSet
    band: Band
    fluency: Fluency | None
    seed: int


@dataclass(frozen=True, slots=True)
class Filtered:
    """What is left of rows.

    Attributes:
        kept: places of the rows that stay, rising.
        drops: the others; a drop's id is the row's.
        figures: what was measured on the way, as plain data.
    """

    kept: tuple[int, ...]
    drops: tuple[Drop, ...]
    figures: Mapping[str, Any]


def fit_filters(settings: Filter, anchors: Sequence[str], embed: Embedder, seed: int = 0) -> Fitted:
    """Learn from the anchors what the rows are held against.

    Raises:
        DataError: no usable anchors, or too few to fit a band or fluency to.
    """
    gold = anchor_set(anchors, embed)
    if settings.low is not None and settings.high is not None:
        band = Band(settings.low, settings.high, "cosine")
    else:
        band = fit_band(gold.vectors, settings.low_quantile, settings.high_quantile, seed)
    fluency = None
    if settings.max_lost is not None:
        fluency = fit_fluency(gold.texts, embed, lost=settings.max_lost, seed=seed)
    return Fitted(settings, gold, band, fluency, seed)


def filter_rows(
    rows: Sequence[Mapping[str, Any] | BadRow],
    ids: Sequence[str],
    fitted: Fitted,
    embed: Callable[[Sequence[str]], Embedded],
) -> Filtered:
    """Hold training rows against the anchors.

    Args:
        rows: in any of TRL's columns (row_texts.py); one that could not be read is a drop.
        ids: what a row's drop is called.
        fitted: by `fit_filters`.
        embed: the embedding model that the anchors were embedded with.

    Raises:
        DataError: embeddings of another width than the anchors'.
    """
    found = [_texts(row) for row in rows]
    compared = [
        t.compared(fitted.settings.compare) if isinstance(t, RowTexts) else None for t in found
    ]
    unique = list(dict.fromkeys(text for text in compared if text is not None))
    reasons, figures = filter_texts(unique, fitted, embed)
    kept, drops = [], []
    for i, (id_, texts, text) in enumerate(zip(ids, found, compared, strict=True)):
        why = texts if text is None else reasons.get(text)
        if why is None:
            kept.append(i)
        else:
            drops.append(Drop(id_, "filter", *why))
    told = {"rows": len(rows), "kept": len(kept), "dropped": Counter(d.reason for d in drops)}
    return Filtered(tuple(kept), tuple(drops), told | figures)


def filter_texts(
    texts: Sequence[str], fitted: Fitted, embed: Callable[[Sequence[str]], Embedded]
) -> tuple[dict[str, Reason], dict[str, Any]]:
    """Which of different texts are dropped and why, and what was measured."""
    settings = fitted.settings
    embedded = embed(texts)
    figures: dict[str, Any] = {
        "texts": len(texts),
        "cut_by_the_embedding_model": int(embedded.truncated.sum()),
        "anchors": len(fitted.anchors),
        "band": asdict(fitted.band),
    }
    overlap = NEVER if settings.copy_overlap is None else settings.copy_overlap
    sieved = filter_by_anchors(
        texts, texts, fitted.anchors, fitted.band, embed, copy=overlap, fluency=fitted.fluency
    )
    reasons = {drop.id: (drop.reason, drop.detail) for drop in sieved.drops}
    left = list(sieved.kept)
    if settings.near_duplicates is not None and left:
        copies = _copies(texts, embedded.vectors, left, settings.near_duplicates, fitted.seed)
        reasons |= copies
        left = [i for i in left if texts[i] not in copies]
    if settings.drift is not None:
        drifted, figures["drift"] = _drifted(
            [texts[i] for i in left], embedded.vectors[left], fitted, settings.drift
        )
        reasons |= drifted
    return reasons, figures


def _texts(row: Mapping[str, Any] | BadRow) -> RowTexts | Reason:
    try:
        if isinstance(row, BadRow):
            raise row
        return row_texts(row)
    except BadRow as bad:
        return bad.reason, bad.detail


def _copies(
    texts: Sequence[str], vectors: Vectors, left: Sequence[int], threshold: float, seed: int
) -> dict[str, Reason]:
    found = near_duplicates(vectors[left], threshold, seed)
    return {
        texts[left[i]]: (
            "redundant: close to another row",
            f"cosine {found.similarity[i]:.3f} to: {texts[left[found.of[i]]]:.200}",
        )
        for i in np.flatnonzero(~found.keep).tolist()
    }


def _drifted(
    texts: Sequence[str], vectors: Vectors, fitted: Fitted, settings: DriftSettings
) -> tuple[dict[str, Reason], dict[str, Any]]:
    gold = fitted.anchors
    if min(len(texts), len(gold)) < FEWEST:
        few = "rows" if len(texts) < FEWEST else "anchors"
        return {}, {"measured": False, "why": f"fewer than {FEWEST} {few} to compare"}
    both = (gold.texts, texts) if settings.ngrams else None
    most = settings.max_pruned if settings.on_alarm == "prune" else 0.0
    found = prune(
        gold.vectors, vectors, texts=both, most=most, level=settings.level, seed=fitted.seed
    )
    told = {"measured": True, "before": found.before.as_dict(),
            "after": None if found.after is None else found.after.as_dict()}  # fmt: skip
    if not found.before.alarm or settings.on_alarm == "warn":
        return {}, told
    why = (
        "drift: one too many of its kind" if found.keep.any()
        else "drift: the batch is not distributed as the anchors are"
    )  # fmt: skip
    detail = f"p {found.before.p_value:.4f}"
    return {texts[i]: (why, detail) for i in np.flatnonzero(~found.keep).tolist()}, told


def nothing_left(filtered: Filtered, what: str) -> DataError:
    """The error of a filter that leaves no row to train on, with the commonest reason."""
    (reason, count), *_ = Counter(d.reason for d in filtered.drops).most_common(1)
    return DataError(
        f"the filters leave none of {filtered.figures['rows']} rows; {count} × {reason}", key=what,
        mend="see kept_aside/ for each row; widen `filter`, or give anchors of what is wanted",
    )  # fmt: skip
