"""A topic map as a picture: every prompt a point, its colour how crowded it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rlaif.cells import Vectors
from rlaif.errors import DataError
from rlaif.prompts.topics import TopicMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Way = Literal["pca", "t-sne"]

_MOST = 3000  # points a side that are drawn: more hide each other, and t-SNE takes minutes
_FEWEST = 10  # points that t-SNE can lay out
_NEIGHBOURS = 15
_LONGEST = 100  # characters of a prompt
_RED = "#c44e52"


def picture(
    found: TopicMap,
    vectors: Vectors,
    path: Path,
    *,
    anchor_vectors: Vectors | None = None,
    way: Way = "t-sne",
    seed: int = 0,
) -> None:
    """Write a PNG: the prompts over the anchors, and the five emptiest regions by name.

    Args:
        found: the map of these prompts.
        vectors: [prompts, width] as the map was made of.
        path: of the picture.
        anchor_vectors: [anchors, width], drawn in grey behind.
        way: "pca" keeps large distances, and "t-sne" (van der Maaten & Hinton 2008) neighbours.
        seed: of the points that are drawn where there are too many, and of t-SNE.

    Raises:
        DataError: fewer than three points to lay out.
    """
    from matplotlib.figure import Figure

    rng = np.random.default_rng(seed)
    own = _some(vectors[found.place >= 0], rng)
    gold = _some(vectors[:0] if anchor_vectors is None else anchor_vectors, rng)
    centres = found.cells.centres
    points = _flat(np.concatenate([own, gold, centres]), way, seed)
    mine, theirs, middle = np.split(points, [len(own), len(own) + len(gold)])
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(theirs[:, 0], theirs[:, 1], s=14, color="0.82", linewidths=0, label="anchors")
    shown = axes.scatter(
        mine[:, 0],
        mine[:, 1],
        s=12,
        c=_crowding(mine),
        cmap="viridis",
        linewidths=0,
        label="prompts",
    )
    figure.colorbar(shown, ax=axes, label="prompts nearby, the most crowded 1", shrink=0.7)
    _name_gaps(axes, found, middle)
    axes.set(title=f"topic entropy {found.evenness}", xticks=[], yticks=[])
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _some(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    if len(vectors) <= _MOST:
        return vectors
    return vectors[np.sort(rng.choice(len(vectors), _MOST, replace=False))]


def _flat(vectors: Vectors, way: Way, seed: int) -> NDArray[np.float32]:
    """[n, 2] places on the picture."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(vectors) < 3 or min(vectors.shape) < 2:
        raise DataError(
            "too few points for a picture", value=len(vectors), mend="give more prompts"
        )
    if way == "pca" or len(vectors) < _FEWEST:
        found = PCA(2, random_state=seed).fit_transform(vectors)
    else:
        near = min(30.0, (len(vectors) - 1) / 3)
        found = TSNE(2, perplexity=near, init="pca", random_state=seed).fit_transform(vectors)
    return np.asarray(found, np.float32)


def _crowding(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n] how densely the points lie around each, by its nearest ones, as a rank from 0 to 1."""
    from scipy.stats import rankdata
    from sklearn.neighbors import NearestNeighbors

    if len(points) < 2:
        return np.ones(len(points))
    search = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(points) - 1)).fit(points)
    away = search.kneighbors()[0].mean(axis=1)
    return np.asarray(rankdata(-away) / len(points), np.float64)


def _name_gaps(axes: Axes, found: TopicMap, middle: NDArray[np.float32], most: int = 5) -> None:
    """Mark the emptiest regions, and say below what they are about."""
    named = found.under[:most]
    for region in named:
        x, y = middle[region.cell]
        axes.plot([x], [y], "x", color=_RED, markersize=8, markeredgewidth=2)
        axes.annotate(
            str(region.cell), (x, y), xytext=(6, 4), textcoords="offset points", color=_RED
        )
    said = [f"{r.cell}: {_short(r.typical[0]) if r.typical else '–'}" for r in named]
    axes.set_xlabel("\n".join(["under-filled", *said]) if said else "", color=_RED, fontsize=9)


def _short(text: str) -> str:
    line = " ".join(text[: 4 * _LONGEST].split()).replace("$", r"\$")  # a $ would begin a formula
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
