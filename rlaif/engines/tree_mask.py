"""The attention mask of a pack: each token sees its own path, in the form that a model takes.

Llama takes one tensor; Qwen3 and Gemma3, whose layers differ, take one for each type of layer;
eager attention takes numbers to add, where sdpa takes booleans too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlaif.engines.prefix import visible


@dataclass(frozen=True, slots=True)
class MaskForm:
    """One way to hand a mask to a model.

    Attributes:
        by_layer_type: a dict with a mask for each type of layer, or one mask for all.
        window: the model's sliding window, in tokens.
        additive: numbers to add to the attention's logits, or booleans.
    """

    by_layer_type: bool
    window: int | None
    additive: bool

    def mask(
        self, ends: Tensor, position_ids: Tensor, dtype: torch.dtype
    ) -> Tensor | dict[str, Tensor]:
        """The masks of some packs, each tensor of shape (packs, 1, n, n).

        Args:
            ends: where each token's subtree ends, shape (packs, n).
            position_ids: each token's depth, shape (packs, n).
            dtype: the model's.
        """
        full = visible(torch.arange(ends.shape[1], device=ends.device), ends[:, None])
        near = full
        if self.window is not None:  # a window reaches back along a token's own path
            near = full & (position_ids[:, :, None] - position_ids[:, None] < self.window)
        if not self.by_layer_type:
            return self._cast(near, dtype)
        return {
            "full_attention": self._cast(full, dtype),
            "sliding_attention": self._cast(near, dtype),
        }

    def _cast(self, seen: Tensor, dtype: torch.dtype) -> Tensor:
        if self.additive:
            blank = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            seen = blank.masked_fill(~seen, torch.finfo(dtype).min)
        return seen[:, None]


def mask_forms(config: Any) -> list[MaskForm]:
    """The forms worth trying on a model of this text configuration, the likeliest first."""
    types = set(getattr(config, "layer_types", None) or ())
    if types - {"full_attention", "sliding_attention"}:
        return []  # recurrent or chunked layers: what they see is no mask of ours to give
    window = getattr(config, "sliding_window", None)
    by_layer_type = [True, False] if "sliding_attention" in types else [False]
    return [MaskForm(b, window, additive) for additive in (False, True) for b in by_layer_type]
