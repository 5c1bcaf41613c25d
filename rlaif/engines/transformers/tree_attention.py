"""Attention over a pack: each token sees its own path, and little is computed that none sees.

    Pack (prefix.py) → TreeLayout → every attention layer of a forward pass over that pack

A pack is a trie in depth-first order. Cut into tiles of neighbouring tokens, all that a tile can
see is the path down to its first token, and itself. So a layer gathers these few keys for each
tile, and a long pack costs no more a token than a short one: there is no mask over the square of
its length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlaif.engines.prefix import Ints, Pack
from rlaif.engines.transformers.attention import Kind, attend_to

TILE = 64
"""Tokens in a tile: larger ones see more that is not theirs, smaller ones multiply less well."""
_STEP = 32
"""Paths and packs are padded to a multiple of this, so that many have one shape."""


@dataclass(slots=True)
class _Tiles:
    """Tiles of one shape.

    Attributes:
        queries: the tokens of each tile, shape (tiles, q).
        keys: what they may see, shape (tiles, k).
        seen: which of these each token sees, shape (tiles, 1, q, k), without a window.
        distance: how far each key lies behind each token on its path, shape as `seen`.
        masks: `seen` within a window, by its width.
    """

    queries: Tensor
    keys: Tensor
    seen: Tensor
    distance: Tensor
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None) -> Tensor:
        if window not in self.masks:
            near = self.seen if window is None else self.seen & (self.distance < window)
            self.masks[window] = near
        return self.masks[window]


def padded(p: Pack) -> Pack:
    """A pack with a few tokens behind it that see and are seen by nothing else.

    Kernels for a CPU are made anew for each length of a pass, and kept: few lengths need few.
    """
    more = -len(p.input_ids) % _STEP
    length = len(p.input_ids) + more
    nothing = np.zeros(more, dtype=np.int64)
    return replace(
        p,
        input_ids=np.concatenate([p.input_ids, nothing]),
        position_ids=np.concatenate([p.position_ids, nothing]),
        ends=np.concatenate([p.ends, np.arange(length - more, length) + 1]),
    )


class TreeLayout:
    """Which tokens of a pack see which, in the form that a device computes.

    Args:
        pack: the tokens.
        device: where the model's layers are.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.length = len(pack.input_ids)
        positions, ends = pack.position_ids.astype(np.int32), pack.ends.astype(np.int32)
        self.tiles = [
            _tiles(queries, keys, positions, ends, device)
            for queries, keys in _shapes(pack.ends, self.length)
        ]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, kind: Kind) -> Tensor:
        """As `attention.Keys.attend`: one row, whose tokens are the pack's."""
        q, k, v = (states[0].transpose(0, 1) for states in (q, k, v))
        out = q.new_empty(self.length, q.shape[1], v.shape[2])
        for tiles in self.tiles:
            seen = tiles.mask(kind.window)
            queries, keys, values = (
                states[which].transpose(1, 2)
                for states, which in ((q, tiles.queries), (k, tiles.keys), (v, tiles.keys))
            )
            out[tiles.queries] = attend_to(queries, keys, values, seen, kind).transpose(1, 2)
        return out[None]


def _shapes(ends: Ints, length: int) -> Iterator[tuple[Ints, Ints]]:
    """Queries (tiles, q) and keys (tiles, k) of all tiles that have one shape; a key of -1 is none.

    Every ancestor of a token in a tile that starts at `a` lies in the tile, or is an ancestor
    of `a`.
    """
    tiles: dict[tuple[int, int], list[tuple[Ints, Ints]]] = defaultdict(list)
    for a in range(0, length, TILE):
        own = np.arange(a, min(a + TILE, length))
        path = np.flatnonzero(ends[:a] > a)
        padding = np.full(-len(path) % _STEP, -1)
        keys = np.concatenate([padding, path, own])
        tiles[len(own), len(keys)].append((own, keys))
    for alike in tiles.values():
        queries, keys = (np.stack(part) for part in zip(*alike, strict=True))
        yield queries, keys


def _tiles(queries: Ints, keys: Ints, positions: Any, ends: Any, device: torch.device) -> _Tiles:
    q, k = (torch.from_numpy(x).to(device) for x in (queries, keys))
    where, until = (torch.from_numpy(x).to(device) for x in (positions, ends))
    missing = k < 0
    k = k.masked_fill(missing, 0)
    last = until[k].masked_fill(missing, 0)  # what is not there has no descendants
    seen = (k[:, None] <= q[:, :, None]) & (q[:, :, None] < last[:, None])
    distance = where[q][:, :, None] - where[k][:, None]
    return _Tiles(q, k, seen[:, None], distance[:, None])
