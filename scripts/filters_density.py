"""Density and BERTScore on planted truth: held-out accuracy, and what the metric tells apart.

python scripts/filters_density.py [--small] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer
from bench_rows import Row, note, row, show, write
from planted_texts import Planted, near_copies, planted, shuffles, texts_of
from rich.console import Console
from sklearn.metrics import roc_auc_score

from rlaif.embed import Embedder
from rlaif.filters.bertscore import bertscore
from rlaif.filters.density import fit_density
from rlaif.intervals import rate
from rlaif.nearest import nearest

_NEAREST = 3
_COPIES = 100


def rows(small: bool = False) -> list[Row]:
    """All rows of this file; small: every fourth of the texts that BERTScore compares."""
    texts, embed = planted(), Embedder()
    return density(texts, embed) + separation(texts, embed, 4 if small else 1)


def density(texts: Sequence[Planted], embed: Embedder) -> list[Row]:
    """Fitted on one part, right on the other."""
    told, said = (texts_of(part, texts) for part in ("fit_informative", "fit_empty"))
    classifier = fit_density(told, said, embed)
    right = []
    for part, says in (("informative", True), ("empty", False)):
        scores = classifier.scores(embed(texts_of(part, texts)).vectors)
        right += [bool((score > 0) == says) for score in scores]
    found = rate(right)
    return [
        row("density: held-out accuracy", ">=", 0.95, found.value),
        note(f"  from, of {found.rows}", found.low),
        note("  to", found.high),
    ]


def separation(texts: Sequence[Planted], embed: Embedder, every: int) -> list[Row]:
    """How often F1 and the cosine rank a text of one kind over one of another."""
    anchors, new = texts_of("anchor", texts), texts_of("new", texts)[::every]
    vectors = embed(anchors).vectors
    kinds = {
        "copies": near_copies(anchors)["typo"][: _COPIES // every],
        "rewordings": texts_of("rewording", texts)[::every],
        "new": new,
        "shuffled new content": shuffles(new),
        "off-topic": texts_of("off_topic", texts)[::every],
    }
    f1, cosine = {}, {}
    for name, part in kinds.items():
        found = nearest(embed(part).vectors, vectors, _NEAREST)
        f1[name] = bertscore(part, anchors, found.index, embed.tokens).f1.max(1)
        cosine[name] = found.similarity[:, 0]
    made = [note(f"BERTScore: median F1 of {name}", float(np.median(f1[name]))) for name in kinds]
    pairs = [
        ("copies", "new"), ("rewordings", "new"), ("new", "off-topic"),
        ("new", "shuffled new content"),
    ]  # fmt: skip
    for high, low in pairs:
        for how, values in (("BERTScore", f1), ("cosine", cosine)):
            made.append(note(f"{how}: {high} over {low}, AUC", _auc(values[high], values[low])))
    return made


def _auc(high: np.ndarray, low: np.ndarray) -> float:
    kinds = np.r_[np.ones(len(high)), np.zeros(len(low))]
    return float(roc_auc_score(kinds, np.r_[high, low]))


def main(json: Path | None = None, small: bool = False) -> None:
    """Measure, print the table, and write it."""
    found = rows(small)
    show(found, Console(width=120))
    if json is not None:
        write(found, json)


if __name__ == "__main__":
    typer.run(main)
