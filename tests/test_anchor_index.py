from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from rlaif.anchor_index import AnchorIndex
from rlaif.errors import DataError
from rlaif.nearest import Vectors, nearest


def unit(rows: int, seed: int = 0) -> Vectors:
    """Unit vectors around 40 centres."""
    centres = np.random.default_rng(0).standard_normal((40, 16))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(40, size=rows)] + rng.standard_normal((rows, 16))
    found: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def index() -> AnchorIndex:
    return AnchorIndex.build(unit(4000), unit(200, 1), recall=0.9)


def test_the_wanted_recall_is_reached_with_few_cells(index: AnchorIndex) -> None:
    queries = unit(200, 2)
    exact = nearest(queries, unit(4000))
    assert (index.search(queries).index == exact.index).mean() >= 0.85
    assert index.recall(queries) == pytest.approx(
        (index.search(queries).index == exact.index).mean(), abs=0.01
    )
    assert index.probes < 40


def test_more_recall_takes_more_cells(index: AnchorIndex) -> None:
    all_ = AnchorIndex.build(unit(4000), unit(200, 1), recall=1.0)
    assert all_.probes > index.probes
    assert all_.recall(unit(200, 1)) == 1.0


def test_an_index_in_a_file_answers_the_same(index: AnchorIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "anchors.faiss")
    again, queries = AnchorIndex.load(tmp_path / "anchors.faiss"), unit(50, 3)
    assert (again.probes, len(again)) == (index.probes, 4000)
    np.testing.assert_array_equal(again.search(queries, 3).index, index.search(queries, 3).index)
    assert [file.name for file in tmp_path.iterdir()] == ["anchors.faiss"]


def test_a_few_anchors_are_enough() -> None:
    index = AnchorIndex.build(unit(3), unit(2, 1))
    found = index.search(unit(3), 3)
    assert found.index[:, 0].tolist() == [0, 1, 2]
    assert sorted(found.index[0].tolist()) == [0, 1, 2]


def test_a_file_that_is_no_index_is_said_in_one_line(tmp_path: Path, index: AnchorIndex) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    index.save(whole)
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "text").write_text("not an index at all")
    faiss.write_index(faiss.IndexFlatIP(4), str(other))
    for name in ("cut", "text", "other"):
        with pytest.raises(DataError, match=f"{name}: is no index of anchors"):
            AnchorIndex.load(tmp_path / name)
    with pytest.raises(DataError, match="no such index"):
        AnchorIndex.load(tmp_path / "missing")
    with pytest.raises(DataError, match="cannot be written"):
        index.save(tmp_path / "no" / "folder")


def test_what_cannot_be_searched_is_said_in_one_line(index: AnchorIndex) -> None:
    broken = unit(3)
    broken[1, 0] = np.nan
    for anchors, sample, words in (
        (unit(0), unit(2), "there are no anchors"),
        (broken, unit(2), "not finite: 1 of the anchors, the first in row 1"),
        (unit(3), unit(0), "no queries to tune"),
        (unit(3), unit(2)[:, :5], "queries are of width 5, the anchors of width 16"),
    ):
        with pytest.raises(DataError, match=words):
            AnchorIndex.build(anchors, sample)
    with pytest.raises(DataError, match="of width 5, the anchors of width 16"):
        index.search(unit(2)[:, :5])
    with pytest.raises(DataError, match=r"k: there are 4000 anchors \(got 4001\)"):
        index.search(unit(2), 4001)
    with pytest.raises(DataError, match="no queries"):
        index.recall(unit(0))
    with pytest.raises(ValueError, match=r"not 1\.5"):
        AnchorIndex.build(unit(3), unit(2), recall=1.5)
