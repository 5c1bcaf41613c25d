from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from rlaif.prompts.topics import TopicMap, topic_map
from rlaif.prompts.topics_report import print_topics
from tests.prompts.test_topics import CELLS, at


def shown(found: TopicMap, most: int = 8) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_topics(found, console, most)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_regions_are_named_with_their_shares_and_what_is_expected() -> None:
    cells = [*[0] * 60, *[1] * 30, *[2] * 9]
    texts = [f"[red]prompt {i}[/red] " + "x" * 99 for i in range(len(cells))]
    found = shown(topic_map(texts, at(*cells), CELLS, typical=1))
    assert "topic entropy over 4 regions: 0." in found
    assert "60.6 % (50.8 % to 69.7 %)" in found and "25.0 %" in found
    assert "[red]prompt 0[/red] xxx" in found and "…" in found  # a prompt is no markup
    assert found.index("Over-filled") < found.index("Under-filled")
    assert found.rindex("0.0 %") > found.index("Under-filled")


def test_what_is_left_out_is_told() -> None:
    cells = [*[0] * 90, *[1] * 90, 2]
    vectors = np.concatenate([at(*cells), np.zeros((2, 4), np.float32)])
    texts = [f"text {i}" for i in range(len(vectors))]
    gold = {"anchors": ["a", "b"] * 50, "anchor_vectors": at(*[0, 1] * 50)}
    found = shown(topic_map(texts, vectors, CELLS), most=1)
    assert "2 of 183 prompts have no embedding" in found
    assert "Over-filled regions, 1 of 2" in found and "Under-filled regions, 1 of 2" in found
    assert ("text 0" in found) != ("text 90" in found)
    even = shown(topic_map(texts[:180], vectors[:180], CELLS, **gold))  # type: ignore[arg-type]
    assert "Over-filled: none beyond chance" in even and "of the anchors: 0.5" in even
