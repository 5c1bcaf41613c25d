"""Attention over a pack: each token sees its own path, and little is computed that none sees.

    Pack (prefix.py) → TreeLayout → every attention layer of a forward pass over that pack

A pack is a trie in depth-first order. Cut into tiles of neighbouring tokens, all that a tile can
see is the path down to its first token, and itself. So a layer gathers these few keys for each
tile, and a long pack costs no more a token than a short one: there is no mask over the square of
its length. The model's layers call `tree_attention` through the library's own table of attention
functions.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rlaif.engines.prefix import Ints, Pack

NAME = "rlaif_tree"
TILE = 64
"""Tokens in a tile: larger ones see more that is not theirs, smaller ones multiply less well."""
_STEP = 32
"""Paths are padded to a multiple of this, so that many tiles have one shape."""

_now = threading.local()
"""The layout of the forward pass that this thread is in."""


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


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """An attention function as `transformers` calls it, over the pack of `passing_over`.

    Args:
        module: the layer's attention.
        query: of shape (1, heads, n, width).
        key: of shape (1, key heads, n, width).
        value: of shape (1, key heads, n, value width).
        attention_mask: not looked at.
        scaling: of the logits; None is 1 / √width.
        dropout: not looked at: a model that scores is in eval mode.
        sliding_window: how many tokens back a token sees, itself included.
        softcap: logits are kept within ± this, as in Gemma 2.
        others: what only other kernels need, or what this one does not do.

    Returns:
        The heads' outputs of shape (1, n, heads, value width), and no weights.

    Raises:
        NotImplementedError: the layer asks for what is not done here.
    """
    _refuse(module, others)
    layout: TreeLayout = _now.layout
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    out = q.new_empty(layout.length, q.shape[1], v.shape[2])
    for tiles in layout.tiles:
        parts = (
            q[tiles.queries].transpose(1, 2),
            k[tiles.keys].transpose(1, 2),
            v[tiles.keys].transpose(1, 2),
        )
        mask = tiles.mask(sliding_window)
        if softcap is None:
            grouped = q.shape[1] != k.shape[1]
            seen = torch.nn.functional.scaled_dot_product_attention(
                *parts, attn_mask=mask, scale=scaling, enable_gqa=grouped
            )
        else:
            seen = _capped(*parts, mask, scaling or q.shape[2] ** -0.5, softcap)
        out[tiles.queries] = seen.transpose(1, 2)
    return out[None], None


def _refuse(module: torch.nn.Module, others: dict[str, Any]) -> None:
    asked = [name for name in ("s_aux", "position_bias", "sinks") if others.get(name) is not None]
    if asked or not getattr(module, "is_causal", True):
        raise NotImplementedError(f"no {', '.join(asked) or 'attention both ways'} over a tree")


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float, cap: float) -> Tensor:
    """Attention whose logits are capped, which no fused kernel computes."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    logits = torch.tanh(q @ k.transpose(2, 3) * scaling / cap) * cap
    weights = logits.float().masked_fill(~mask, float("-inf")).softmax(-1)
    return weights.to(q.dtype) @ v


@contextmanager
def tree_attention_in(model: Any) -> Iterator[bool]:
    """Let a model's layers attend over trees; whether they do, since not every architecture can."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(NAME)
    except (ValueError, AttributeError):  # an architecture that has its one way of attending
        yield False
        return
    try:
        yield model.config.get_text_config()._attn_implementation == NAME
    finally:
        model.set_attn_implementation(before)


@contextmanager
def passing_over(layout: TreeLayout) -> Iterator[None]:
    """The forward passes of this thread in here are over that pack."""
    _now.layout = layout
    try:
        yield
    finally:
        del _now.layout


ALL_ATTENTION_FUNCTIONS.register(NAME, tree_attention)
