from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.cells import Cells
from rlaif.embed import Embedder
from rlaif.errors import DataError
from rlaif.prompts.topics import TopicMap, topic_map

WIDTH = 4
CELLS = Cells(np.eye(WIDTH, dtype=np.float32))


def at(*cells: int) -> np.ndarray:
    """Unit vectors in these cells, each a little farther from the centre than the one before."""
    rows = np.eye(WIDTH)[list(cells)] + 0.01 * np.arange(len(cells))[:, None]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn(*cells: int, **given_: object) -> TopicMap:
    texts = [f"text {i}" for i in range(len(cells))]
    return topic_map(texts, at(*cells), CELLS, **given_)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, WIDTH - 1), min_size=1, max_size=30), st.randoms())
@settings(max_examples=20, deadline=None)
def test_the_map_does_not_depend_on_the_order_of_the_prompts(
    cells: list[int], chance: object
) -> None:
    order = list(range(len(cells)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    texts, vectors = [f"text {i}" for i in order], at(*cells)
    mixed = topic_map(texts, vectors[order], CELLS)
    assert mixed.regions == drawn(*cells).regions
    assert mixed.evenness == drawn(*cells).evenness


def test_as_many_prompts_everywhere_is_an_entropy_of_1() -> None:
    assert drawn(0, 1, 2, 3).evenness.value == 1.0
    assert drawn(0, 0, 0).evenness.value == 0.0
    assert drawn(0, 1).evenness.plain == pytest.approx(0.5)


def test_regions_are_over_or_under_filled_beyond_chance_and_sorted() -> None:
    found = drawn(*[0] * 60, *[1] * 30, *[2] * 9, *[3] * 1)
    assert [r.cell for r in found.over] == [0]
    assert [r.cell for r in drawn(*[3] * 60, *[0] * 99, *[1] * 9).over] == [0, 3]
    assert [r.cell for r in found.under] == [3, 2]
    assert found.regions[1].standing == "even"
    assert found.regions[0].share == pytest.approx(0.6)
    assert {r.standing for r in drawn(0, 0, 1).regions} == {"even"}  # three prompts show nothing


def test_what_is_expected_is_the_anchors_share() -> None:
    gold = {"anchors": ["a", "b", "c", "d"], "anchor_vectors": at(0, 0, 0, 1)}
    found = drawn(*[0] * 75, *[1] * 25, **gold)
    assert [r.expected for r in found.regions] == [0.75, 0.25, 0, 0]
    assert not found.over and not found.under
    assert found.anchors is not None and found.anchors.plain < 0.5
    assert drawn(2, **gold).regions[2].ratio == math.inf


def test_a_region_is_named_by_its_most_typical_prompts_or_else_by_the_anchors() -> None:
    found = drawn(0, 0, 0, 1, anchors=["far", "near"], anchor_vectors=at(2, 2)[::-1], typical=2)
    assert found.regions[0].typical == ("text 0", "text 1")
    assert found.regions[2].typical == ("near", "far")
    assert found.regions[3].typical == ()


def test_prompts_without_an_embedding_are_counted_and_kept_aside() -> None:
    vectors = at(0, 1, 2)
    vectors[0], vectors[2] = 0, np.nan
    found = topic_map(["", "fine", "odd"], vectors, CELLS)
    assert found.evenness.rows == 1 and found.place.tolist() == [-1, 1, -1]
    assert [(d.id, d.stage, d.reason) for d in found.drops] == [
        ("0", "topics", "no embedding"), ("2", "topics", "no embedding"),
    ]  # fmt: skip


def test_what_cannot_be_mapped_is_one_line() -> None:
    with pytest.raises(DataError, match="none of the 2 prompts has an embedding"):
        topic_map(["", ""], np.zeros((2, WIDTH), np.float32), CELLS)
    with pytest.raises(DataError, match="1 prompts, and embeddings of shape"):
        topic_map(["a"], at(0, 1), CELLS)
    with pytest.raises(DataError, match="more cells than different texts"):
        topic_map(["a", "a"], at(0, 0), 3)
    with pytest.raises(DataError, match="at width 4, anchors at width 3"):
        drawn(0, anchors=["a"], anchor_vectors=np.eye(3, dtype=np.float32)[:1])
    with pytest.raises(DataError, match="none of the 0 anchors"):
        drawn(0, anchors=[], anchor_vectors=np.zeros((0, WIDTH), np.float32))
    with pytest.raises(DataError, match="the cells were made at width 4"):
        topic_map(["a"], np.ones((1, 3), np.float32), CELLS)


def test_real_texts_lie_by_topic_and_any_script_lies_somewhere() -> None:
    cooking = ["How do I bake bread?", "How do I bake a cake?", "What is the way to cook bread?"]
    music = ["How do I play the piano?", "How do I play the guitar?", "I practise the piano daily."]
    texts = [*cooking, *music, "  ", "如何弹钢琴？", "Как испечь хлеб?", "x" * 100_000]
    found = topic_map(texts, Embedder()(texts).vectors, 3)
    (one, two) = (set(found.place[:3]), set(found.place[3:6]))
    assert len(one) == len(two) == 1 and one != two
    assert [d.id for d in found.drops] == ["6"] and (found.place[7:] >= 0).all()
