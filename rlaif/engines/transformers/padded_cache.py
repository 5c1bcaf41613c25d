"""Keys and values while sampling, for a model that attends in its own way: a row a response.

Against `generate` of the library: the keys and values have their room from the start instead of
being copied at each step, and a prompt is computed once for all its responses.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_PREFILL_TOKENS = 16_384
"""Prompt tokens in one forward pass: more only costs memory."""


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in tensors that are as long from the start as they will get."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.used = room, 0

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self._all_keys, self._all_values = self._room_for(keys), self._room_for(values)
        start, self.used = self.used, self.used + keys.shape[-2]
        self._all_keys[:, :, start : self.used] = keys
        self._all_values[:, :, start : self.used] = values
        return self._show()

    def reorder_cache(self, rows: Tensor) -> None:
        keys, values = self.keys[rows], self.values[rows]
        self._all_keys, self._all_values = self._room_for(keys), self._room_for(values)
        self._all_keys[:, :, : self.used] = keys
        self._all_values[:, :, : self.used] = values
        self._show()

    def _room_for(self, states: Tensor) -> Tensor:
        rows, heads, _, width = states.shape
        return states.new_empty(rows, heads, self.room, width)

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys = self._all_keys[:, :, : self.used]
        self.values = self._all_values[:, :, : self.used]
        return self.keys, self.values


class PaddedDecoder:
    """A batch of prompts, padded on the left, on its way through a model.

    Args:
        model: a causal language model in eval mode.
        prompts: token ids.
        n: responses a prompt.
        room: tokens a response at most.
        pad: the id to pad with.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], n: int, room: int, pad: int
    ) -> None:
        self.model, self.n, device = model, n, model.device
        width = max(map(len, prompts))
        self.cache = DynamicCache(config=model.config)
        self.cache.layers = [
            _RoomyLayer(width + room) if type(layer) is DynamicLayer else layer
            for layer in self.cache.layers
        ]
        left = [[pad] * (width - len(p)) + list(p) for p in prompts]
        self.ids = torch.tensor(left, device=device)
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        self.mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
        self.computed_tokens = self.ids.numel()
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def prefill(self) -> Tensor:
        """Logits after each prompt, shape (prompts, vocabulary)."""
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        columns = max(1, _PREFILL_TOKENS // len(self.ids))
        for start in range(0, self.ids.shape[1], columns):
            part = slice(start, start + columns)
            seen = self.mask[:, : part.stop]
            logits = self._forward(self.ids[:, part], seen, positions[:, part])
        self.position = positions[:, -1:]
        if self.n > 1:
            self.keep(torch.arange(len(self.ids), device=self.ids.device).repeat_interleave(self.n))
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """Logits after one more token a row, shape (rows, vocabulary)."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.position = self.position + 1
        return self._forward(tokens[:, None], self.mask, self.position)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone; a row may be named more than once."""
        self.cache.reorder_cache(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        where = {"position_ids": positions} if self._takes_positions else {}
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **where,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits
