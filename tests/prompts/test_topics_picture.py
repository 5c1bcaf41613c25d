from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from rlaif.errors import DataError
from rlaif.prompts.topics import topic_map
from rlaif.prompts.topics_picture import Way, picture
from tests.prompts.test_topics import CELLS, at

CROWDED = [*[0] * 40, *[1] * 6]


def drawn(path: Path, way: Way, anchors: bool, text: str = "a prompt of $5 and $6") -> np.ndarray:
    vectors = np.concatenate([at(*CROWDED), np.zeros((1, 4), np.float32)])
    found = topic_map([text] * len(vectors), vectors, CELLS)
    picture(found, vectors, path, anchor_vectors=at(2, 3, 2, 3) if anchors else None, way=way)
    return image.imread(path)[..., :3]


@pytest.mark.parametrize("way", ["pca", "t-sne"])
def test_a_picture_shows_prompts_by_density_and_anchors_in_grey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    figures: list[Figure] = []
    save = Figure.savefig

    def savefig(figure: Figure, *args: Any, **named: Any) -> None:
        figures.append(figure)
        save(figure, *args, **named)

    monkeypatch.setattr(Figure, "savefig", savefig)
    with_ = drawn(tmp_path / "a.png", way, anchors=True)
    assert with_.shape[0] > 500 and with_.shape[1] > 500
    drawn(tmp_path / "b.png", way, anchors=False)
    # By what is drawn, not by its pixels: where t-SNE puts a point is another processor's choice.
    behind, front = figures[0].axes[0].collections[:2]
    assert len(behind.get_offsets()) == 4 and len(front.get_offsets()) == len(CROWDED)
    assert behind.get_facecolor()[0].tolist() == pytest.approx([0.82, 0.82, 0.82, 1.0])
    assert len(figures[1].axes[0].collections[0].get_offsets()) == 0


def test_a_points_colour_is_how_crowded_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    tight = np.array([[1, 0.001 * i, 0, 0] for i in range(30)])
    loose = np.array([[0, 0, 1, 0.3 * i] for i in range(10)])
    vectors = np.concatenate([tight, loose]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = topic_map([f"text {i}" for i in range(40)], vectors, CELLS)
    picture(found, vectors, tmp_path / "a.png", way="pca")
    axes = figures[0].axes[0]
    crowded = np.asarray(axes.collections[1].get_array())
    assert crowded[:30].min() > crowded[30:].max()
    assert "text 0" not in axes.get_xlabel() and "under-filled\n" in axes.get_xlabel()


def test_the_same_map_is_the_same_picture(tmp_path: Path) -> None:
    for name in "ab":
        drawn(tmp_path / f"{name}.png", "t-sne", anchors=True)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_too_little_for_a_picture_is_one_line(tmp_path: Path) -> None:
    cells = topic_map(["a", "b"], at(0, 1), 2)
    picture(cells, at(0, 1), tmp_path / "few.png")  # with the centres, four points
    flat = topic_map(["a", "b"], np.array([[1], [-1]], np.float32), 2)
    with pytest.raises(DataError, match="too few points for a picture"):
        picture(flat, np.array([[1], [-1]], np.float32), tmp_path / "none.png")
