from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines.prefix import Pack, pack
from rlaif.engines.transformers import tree_attention as module
from rlaif.engines.transformers.attention import Kind
from rlaif.engines.transformers.tree_attention import TreeLayout

CPU = torch.device("cpu")
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30), min_size=1, max_size=25)


def seen_by(layout: TreeLayout, window: int | None) -> np.ndarray:
    """Which token (column) each token (row) sees in the tiles, and that it sees none twice."""
    seen = np.zeros((layout.length, layout.length), dtype=int)
    for tiles in layout.tiles:
        mask = tiles.mask(window)[:, 0]
        for queries, keys, each in zip(tiles.queries, tiles.keys, mask, strict=True):
            for query, row in zip(queries.tolist(), each, strict=True):
                np.add.at(seen[query], keys[row].numpy(), 1)
    return seen


def in_window(p: Pack, window: int | None) -> np.ndarray:
    distance = p.position_ids[:, None] - p.position_ids[None]
    return p.visible() if window is None else p.visible() & (distance < window)


@given(sequences, st.sampled_from([1, 4, 7, 64]), st.sampled_from([None, 1, 5]))
def test_each_token_sees_its_path_within_the_window(
    rows: list[list[int]], tile: int, window: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE", tile)
        for p in pack(rows, budget=200):
            assert (seen_by(TreeLayout(p, CPU), window) == in_window(p, window)).all()


def dense(p: Pack, q: Any, k: Any, v: Any, window: int | None, cap: float | None) -> torch.Tensor:
    """The same attention over a mask of the pack's square, in double precision."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    logits = q @ k.transpose(2, 3) * 0.3
    logits = logits if cap is None else torch.tanh(logits / cap) * cap
    hidden = ~torch.from_numpy(in_window(p, window))
    return (logits.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_it_is_attention_over_the_whole_mask(window: int | None, cap: float | None) -> None:
    head = [[i % 7 for i in range(90)] + [k, *range(k)] for k in range(8)]
    [p] = pack([*head, *([1, *row] for row in head)], budget=10_000)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, len(p.input_ids), 8, generator=generator) for heads in (4, 2, 2)
    )
    found = TreeLayout(p, CPU).attend(0, q, k, v, Kind(0.3, window, cap))
    assert (found - dense(p, q, k, v, window, cap)).abs().max() < 1e-5
