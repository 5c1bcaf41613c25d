from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from filters_gaps import EVENNESS, steep, told, world

from rlaif.cells import Cells
from rlaif.embed import Embedded
from rlaif.entropy import entropy, evenness
from rlaif.prompts.gaps import Filled, Round
from rlaif.prompts.landing import NewPrompt
from rlaif.records import Drop
from rlaif.sandbox.phrases import TOPICS
from rlaif.sandbox.prompts import parse, split_of


@pytest.mark.parametrize("cells", [8, 24])
def test_what_is_planted_is_as_even_as_said(cells: int) -> None:
    counts = steep(cells, 400)
    assert entropy(counts) / math.log(cells) == pytest.approx(EVENNESS, abs=0.01)
    assert counts.sum() == pytest.approx(400, abs=4)


def by_topic(texts: list[str]) -> Embedded:
    """One direction a topic, and a little of its own."""
    vectors = np.zeros((len(texts), len(TOPICS) + 1), np.float32)
    for i, text in enumerate(texts):
        vectors[i, list(TOPICS).index(parse(text).topic)] = 1  # type: ignore[union-attr]
        vectors[i, -1] = 1e-4 * i / len(texts)
    return Embedded(vectors, np.zeros(len(texts), bool), (None,) * len(texts))


def test_anchors_are_of_all_topics_and_prompts_of_few_from_another_split() -> None:
    there = world(by_topic, 300, 100, len(TOPICS))  # type: ignore[arg-type]
    assert {split_of(text) for text in there.anchors} == {"pretrain"}
    assert {split_of(text) for text in there.planted} == {"label"}
    assert len({parse(text).topic for text in there.anchors}) == len(TOPICS)  # type: ignore[union-attr]
    planted = evenness(there.cells.counts(by_topic(there.planted).vectors))
    assert planted.plain == pytest.approx(EVENNESS, abs=0.05)


def test_rows_tell_what_came_of_it() -> None:
    there = world(by_topic, 40, 10, 2)  # type: ignore[arg-type]
    new = [
        NewPrompt("a", 1, 1, "How do I bake bread?", 1, 0.5),
        NewPrompt("b", 0, 1, "How do I bake a lecture?", 1, 0.5),
    ]
    first = Round(0, 0, 0, evenness(np.array([2, 0])), 1)
    filled = Filled(
        tuple(new), (first, first), (), np.array([2, 2]), (Drop("c", "gaps", "near-copy"),),
        4, 9, "gaps filled",
    )  # fmt: skip
    two = there._replace(cells=Cells(np.eye(2, dtype=np.float32)))
    rows = {row["name"]: row for row in told("x", filled, two, 1.0)}
    assert rows["x: topic entropy planted"]["measured"] == 0.0
    assert rows["x: topic entropy filled"]["holds"] is True
    assert rows["x: regions of the anchors with a prompt, of 2"]["holds"] is True
    assert rows["x: kept ones that landed in the gap asked about"]["measured"] == 0.5
    assert rows["x: kept ones that are prompts of the world, word for word"]["measured"] == 0.5
    assert rows["x: dropped, near-copy"]["measured"] == 0.25
