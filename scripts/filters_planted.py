"""The filters against collapse on planted truth: what each drops of what it should, and keeps.

The band and the classifier of fluency are fitted to the anchors alone, and scored on other texts.
The anchors are the parts anchor and dense.

python scripts/filters_planted.py [--small] [--json FILE]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import typer
from bench_rows import Row, note, row, show, write
from planted_texts import (
    Planted,
    near_copies,
    planted,
    random_words,
    shuffles,
    texts_of,
    topic_words,
    words_of,
)
from rich.console import Console

from rlaif.embed import Embedder
from rlaif.filters.anchor import COPY, DRIFT, REDUNDANT, SALAD, filter_by_anchors
from rlaif.filters.anchor_band import AnchorSet, Band, anchor_set, fit_band, propose
from rlaif.filters.fluency import Fluency, fit_fluency
from rlaif.filters.overlap import grams, overlap
from rlaif.intervals import rate

_FIXED = Band(0.65, 0.92, "cosine")
_LOWS = (0.03, 0.05, 0.08)  # beside the one that `propose` takes
_SMALL = 6
_ALIKE = 0.35  # of the 3-grams: what shares as much with an anchor is no new content


def rows(small: bool = False, cache: Path | None = None) -> list[Row]:
    """All rows of this file.

    Args:
        small: a sixth of the texts that are scored; the anchors are all there.
        cache: a folder for the embeddings; None keeps none.
    """
    with TemporaryDirectory() as folder:  # texts are asked for again by every band
        return _rows(planted(), Embedder(cache=cache or Path(folder)), small)


def _rows(texts: Sequence[Planted], embed: Embedder, small: bool) -> list[Row]:
    anchors = anchor_set(anchor_texts(texts), embed)
    proposal = propose(anchors)
    fluency = fit_fluency(anchors.texts, embed)
    parts = scored(texts, _SMALL if small else 1)
    reasons = {name: _reasons(part, anchors, proposal.band, embed, fluency) for name, part in parts}
    fixed = {name: _reasons(part, anchors, _FIXED, embed, None, 2.0) for name, part in parts}
    made = [
        *fitted_rows(reasons),
        *fixed_rows(fixed),
        *quantile_rows(anchors, dict(parts), embed, fluency),
        note("anchor: drift that the fit itself expects to catch", proposal.caught),
        note(
            "anchor: most 3-grams that new content shares with an anchor",
            max(shared(dict(parts)["new"], anchors.texts)),
        ),
    ]
    broad = anchor_set([*anchors.texts, *texts_of("broad", texts)], embed)
    first = len(texts_of("anchor", texts))
    sparse = AnchorSet(anchors.texts[:first], anchors.vectors[:first])
    fewer = [AnchorSet(sparse.texts[::n], sparse.vectors[::n]) for n in (1, 2, 4, 12)]
    return made + other_rows([broad, *fewer], dict(parts), embed)


def anchor_texts(texts: Sequence[Planted]) -> list[str]:
    """What the filter is fitted to: those of part anchor first."""
    return texts_of("anchor", texts) + texts_of("dense", texts)


def scored(texts: Sequence[Planted], every: int) -> list[tuple[str, list[str]]]:
    """The parts that are scored, every so many of their texts."""
    anchors = texts_of("anchor", texts)
    new = new_content(texts)
    copies = near_copies(anchors[::every])
    parts = {
        **{f"near-copies ({kind})": made for kind, made in copies.items()},
        "new": new[::every],
        "off-topic": texts_of("off_topic", texts)[::every],
        "rewordings": texts_of("rewording", texts)[::every],
        "shuffled anchors": shuffles(anchors[::every]),
        "shuffled new content": shuffles(new)[::every],
        "random words": random_words(words_of(anchors), 300)[::every],
        "random words of one topic": topic_words(texts, 10)[::every],
    }
    return list(parts.items())


def _reasons(
    texts: list[str],
    anchors: AnchorSet,
    band: Band,
    embed: Embedder,
    fluency: Fluency | None,
    copy: float = 0.5,
) -> list[str]:
    """Why each text is dropped; "" where it is kept."""
    ids = [str(i) for i in range(len(texts))]
    sieved = filter_by_anchors(texts, ids, anchors, band, embed, copy=copy, fluency=fluency)
    found = dict.fromkeys(ids, "")
    found.update({drop.id: drop.reason for drop in sieved.drops})
    return [found[i] for i in ids]


def fitted_rows(reasons: dict[str, list[str]]) -> list[Row]:
    """Band, letters and fluency together."""
    kinds = [name for name in reasons if name.startswith("near-copies")]
    copies = [reason for kind in kinds for reason in reasons[kind]]
    redundant = (REDUNDANT, COPY)
    made = [
        *_rate("near-copies dropped as redundant", [r in redundant for r in copies], 0.98),
        *_rate("new content kept", [not r for r in reasons["new"]], 0.90),
        *_rate("off-topic dropped as drift", [r == DRIFT for r in reasons["off-topic"]], 0.95),
        *_rate("random words dropped", [bool(r) for r in reasons["random words"]], 0.95),
        *_rate("shuffled anchors dropped", [bool(r) for r in reasons["shuffled anchors"]], 0.95),
    ]
    worst = min(float(np.mean([r in redundant for r in reasons[k]])) for k in kinds)
    made.append(note("anchor: near-copies dropped, of the worst kind of edit", worst))
    for name in ("random words of one topic", "shuffled new content", "rewordings"):
        made += _rate(f"{name} dropped", [bool(r) for r in reasons[name]])
    by = Counter(r for r in reasons["new"] if r)
    made += [
        note(f"anchor: new content lost to '{name}'", by[name] / len(reasons["new"]))
        for name in (COPY, REDUNDANT, DRIFT, SALAD)
    ]
    return made


def fixed_rows(reasons: dict[str, list[str]]) -> list[Row]:
    """A fixed band of plain cosines, beside it."""
    copies = [r for name, part in reasons.items() if name.startswith("near-c") for r in part]
    told = f"fixed {_FIXED.low} to {_FIXED.high}"
    return [
        note(f"{told}: near-copies dropped", float(np.mean([r == REDUNDANT for r in copies]))),
        note(f"{told}: new content kept", float(np.mean([not r for r in reasons["new"]]))),
        note(
            f"{told}: off-topic dropped", float(np.mean([r == DRIFT for r in reasons["off-topic"]]))
        ),
        note(
            f"{told}: shuffled anchors dropped",
            float(np.mean([bool(r) for r in reasons["shuffled anchors"]])),
        ),
    ]


def quantile_rows(
    anchors: AnchorSet, parts: dict[str, list[str]], embed: Embedder, fluency: Fluency
) -> list[Row]:
    """Where the low end stands is a choice between new content and other topics."""
    made = []
    for low in _LOWS:
        band = fit_band(anchors.vectors, low)
        new, off = (
            _reasons(parts[name], anchors, band, embed, fluency) for name in ("new", "off-topic")
        )
        told = f"low quantile {low}"
        made += [
            note(f"{told}: new content kept", float(np.mean([not r for r in new]))),
            note(f"{told}: off-topic dropped", float(np.mean([r == DRIFT for r in off]))),
        ]
    return made


def other_rows(
    sets: Sequence[AnchorSet], parts: dict[str, list[str]], embed: Embedder
) -> list[Row]:
    """The same with other anchors, fewer or broader: what a user gets then, and is told."""
    made = []
    for some in sets:
        proposal = propose(some)
        new, off = (
            _reasons(parts[name], some, proposal.band, embed, None) for name in ("new", "off-topic")
        )
        told = f"{len(some)} anchors"
        made += [
            note(f"{told}: new content kept", float(np.mean([not r for r in new]))),
            note(f"{told}: off-topic dropped", float(np.mean([r == DRIFT for r in off]))),
            note(f"{told}: drift that the fit expects to catch", proposal.caught),
            note(f"{told}: warnings", len(proposal.warnings)),
        ]
    return made


def _rate(name: str, outcomes: list[bool], wanted: float | None = None) -> list[Row]:
    """The share, and both ends of its 95 % interval."""
    found = rate(outcomes)
    first = (
        note(f"anchor: {name}", found.value)
        if wanted is None
        else row(f"anchor: {name}", ">=", wanted, found.value)
    )
    return [first, note(f"  from, of {found.rows}", found.low), note("  to", found.high)]


def new_content(texts: Sequence[Planted]) -> list[str]:
    """What is about the anchors' topics and shares few letters with any anchor."""
    new = texts_of("new", texts)
    most = shared(new, anchor_texts(texts))
    return [text for text, alike in zip(new, most, strict=True) if alike < _ALIKE]


def shared(texts: Sequence[str], anchors: Sequence[str]) -> list[float]:
    """The most 3-grams that each text shares with an anchor: Jaccard's overlap."""
    taken = [grams(anchor) for anchor in anchors]
    return [max(overlap(grams(text), one) for one in taken) for text in texts]


def main(json: Path | None = None, small: bool = False, cache: Path | None = None) -> None:
    """Measure, print the table, and write it."""
    found = rows(small, cache)
    show(found, Console(width=120))
    if json is not None:
        write(found, json)


if __name__ == "__main__":
    typer.run(main)
