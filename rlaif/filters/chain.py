"""The filters over embeddings in a row: what a recipe's `filter` section makes of training rows.

    rows → texts → density → anchors → near-duplicates → drift → kept, dropped and why

It decides on texts, not on rows: of pairs with the same compared text all stay or none, and a
distribution counts each text once. A plain function: rlaif/filtering.py makes it durable for a
run, and rlaif/filter_data.py runs it over any preference data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlaif.embed import Embedder, Vectors
from rlaif.errors import DataError
from rlaif.filters.anchor import COPY, REDUNDANT, filter_by_anchors
from rlaif.filters.anchor_band import AnchorSet, Band, anchor_set, fit_band
from rlaif.filters.bertscore import bertscore
from rlaif.filters.density import Density, load_density
from rlaif.filters.density import prune as prune_sentences
from rlaif.filters.drift import FEWEST
from rlaif.filters.drift_prune import prune
from rlaif.filters.duplicates import near_duplicates
from rlaif.filters.fluency import Fluency, fit_fluency
from rlaif.filters.row_texts import RowTexts, row_texts
from rlaif.nearest import nearest
from rlaif.prompts.rows import BadRow
from rlaif.recipe import Drift as DriftSettings
from rlaif.recipe import Filter
from rlaif.records import Drop

UNLIKE = "drift: low BERTScore with the nearest anchors"

_NEAR_COPY = "redundant: close to another row"

_KEPT = "", ""

_SAID = ("", REDUNDANT, COPY, _NEAR_COPY)
"""What may be the matter with a text that counts in the distribution of what was said."""

_COMPARED = 3  # anchors that BERTScore is computed with

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
        density: None where answers that say little are not looked for.
        seed: of all that is drawn.
    """

    settings: Filter
    anchors: AnchorSet
    band: Band
    fluency: Fluency | None
    density: Density | None
    seed: int


@dataclass(frozen=True, slots=True)
class Filtered:
    """What is left of rows.

    Attributes:
        kept: places of the rows that stay, rising.
        drops: the others; a drop's id is the row's.
        figures: what was measured on the way, as plain data.
        shortened: by the place of a row that stays, its response without the sentences that say
            little, where there are such.
    """

    kept: tuple[int, ...]
    drops: tuple[Drop, ...]
    figures: Mapping[str, Any]
    shortened: Mapping[int, str]


def fit_filters(settings: Filter, anchors: Sequence[str], embed: Embedder, seed: int = 0) -> Fitted:
    """Learn from the anchors what the rows are held against.

    Raises:
        DataError: no usable anchors, or too few to fit a band or fluency to; a density classifier
            that was fitted with another embedding model.
    """
    gold = anchor_set(anchors, embed)
    if settings.low is not None and settings.high is not None:
        band = Band(settings.low, settings.high, "cosine")
    else:
        band = fit_band(gold.vectors, settings.low_quantile, settings.high_quantile, seed)
    fluency = None
    if settings.max_lost is not None:
        fluency = fit_fluency(gold.texts, embed, lost=settings.max_lost, seed=seed)
    density = None
    if settings.density is not None:
        density = load_density(settings.density.classifier, embed.fingerprint)
    return Fitted(settings, gold, band, fluency, density, seed)


def filter_rows(
    rows: Sequence[Mapping[str, Any] | BadRow],
    ids: Sequence[str],
    fitted: Fitted,
    embed: Embedder,
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
    read = {i: texts for i, texts in enumerate(found) if isinstance(texts, RowTexts)}
    why = {i: reason for i, reason in enumerate(found) if not isinstance(reason, RowTexts)}
    sparse, shorter = _sparse([texts.response for texts in read.values()], fitted, embed)
    why |= {i: sparse[t.response] for i, t in read.items() if t.response in sparse}
    compared = {i: t.compared(fitted.settings.compare) for i, t in read.items() if i not in why}
    reasons, figures = filter_texts(list(dict.fromkeys(compared.values())), fitted, embed)
    why |= {i: reasons[text] for i, text in compared.items() if text in reasons}
    kept = tuple(i for i in range(len(rows)) if i not in why)
    drops = tuple(Drop(ids[i], "filter", *why[i]) for i in sorted(why))
    told = {"rows": len(rows), "kept": len(kept), "dropped": Counter(d.reason for d in drops)}
    shortened = {i: shorter[read[i].response] for i in kept if read[i].response in shorter}
    return Filtered(kept, drops, told | figures, shortened)


def filter_texts(
    texts: Sequence[str], fitted: Fitted, embed: Embedder
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
    if settings.min_bertscore is not None and left:
        unlike = _unlike([texts[i] for i in left], embedded.vectors[left], fitted, embed)
        reasons |= unlike
        left = [i for i in left if texts[i] not in unlike]
    if settings.near_duplicates is not None and left:
        copies = _copies(texts, embedded.vectors, left, settings.near_duplicates, fitted.seed)
        reasons |= copies
        left = [i for i in left if texts[i] not in copies]
    if settings.drift is not None:
        # What is redundant is left out because it is there already: it is part of what was said.
        said = [i for i, text in enumerate(texts) if reasons.get(text, _KEPT)[0] in _SAID]
        drifted, figures["drift"] = _drifted(
            [texts[i] for i in said], embedded.vectors[said], fitted, settings.drift
        )
        reasons = drifted | reasons
    return reasons, figures


def _texts(row: Mapping[str, Any] | BadRow) -> RowTexts | Reason:
    try:
        if isinstance(row, BadRow):
            raise row
        return row_texts(row)
    except BadRow as bad:
        return bad.reason, bad.detail


def _sparse(
    responses: Sequence[str], fitted: Fitted, embed: Embedder
) -> tuple[dict[str, Reason], dict[str, str]]:
    """Responses that say too little; and what is left of the others, where that is less."""
    settings = fitted.settings.density
    if settings is None or fitted.density is None:
        return {}, {}
    texts = [text for text in dict.fromkeys(responses) if text.strip()]
    found = prune_sentences(texts, texts, fitted.density, embed, share=settings.min_share)
    shorter = {
        texts[i]: left for i, left in zip(found.kept, found.texts, strict=True) if left != texts[i]
    }
    return {d.id: (d.reason, d.detail) for d in found.drops}, shorter


def _unlike(
    texts: Sequence[str], vectors: Vectors, fitted: Fitted, embed: Embedder
) -> dict[str, Reason]:
    """Texts whose words are not those of the anchors nearest to them."""
    anchors, least = fitted.anchors, fitted.settings.min_bertscore
    found = nearest(vectors, anchors.vectors, min(_COMPARED, len(anchors))).index
    f1 = bertscore(texts, anchors.texts, found, embed.tokens).f1
    best, row = f1.max(1), found[np.arange(len(texts)), f1.argmax(1)]
    # Without a token on either side there is no score, and nothing to drop by.
    return {
        text: (UNLIKE, f"F1 {best[i]:.3f}; nearest anchor: {anchors.texts[row[i]]:.200}")
        for i, text in enumerate(texts)
        if best[i] < least
    }


def _copies(
    texts: Sequence[str], vectors: Vectors, left: Sequence[int], threshold: float, seed: int
) -> dict[str, Reason]:
    found = near_duplicates(vectors[left], threshold, seed)
    return {
        texts[left[i]]: (
            _NEAR_COPY,
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
