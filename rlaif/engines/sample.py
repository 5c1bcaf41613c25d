"""A batch of prompts → sampled tokens: a decode loop with one random stream a row.

Against `generate` of the library: the keys and values have their room from the start instead of
being copied at each step, a prompt is computed once for all its responses, finished rows leave
the batch, and no global random state is read or changed: what a row's dice show follows from its
seed alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlaif.engines.protocol import Sampling
from rlaif.records import seed_of

_PREFILL_TOKENS = 16_384
"""Prompt tokens in one forward pass: more only costs memory."""
_COMPACT_AT = 0.75
"""Finished rows are thrown out once no more than this share of the batch goes on."""


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


class _Decoder:
    """One batch on its way through a model: token ids in, logits of the next token out."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad: int, room: int) -> None:
        self.model, device = model, model.device
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


@torch.inference_mode()
def sample_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    *,
    pad: int,
    ends: Collection[int],
    has_stopped: Callable[[list[int]], bool] | None = None,
) -> list[list[int] | None]:
    """Sample `sampling.n` responses to each prompt.

    Args:
        model: a causal language model in eval mode.
        prompts: token ids.
        sampling: `stop` is not looked at: see `has_stopped`.
        seeds: one a prompt.
        pad: the id to pad with.
        ends: the ids that end a response.
        has_stopped: whether a response that has come this far is over.

    Returns:
        The responses' tokens, those of the first prompt first, each with its end token if that
        came; None where the logits were not finite.
    """
    decoder = _Decoder(model, prompts, pad, sampling.max_tokens)
    device = model.device
    total = len(prompts) * sampling.n
    dice = _dice(seeds, sampling).to(device)
    said = torch.full((total, sampling.max_tokens), -1, device=device)
    broken = torch.zeros(total, dtype=torch.bool, device=device)
    end_ids = torch.tensor(sorted(ends), device=device)
    live = torch.arange(total, device=device)  # which response each row of the batch is
    over = torch.zeros(total, dtype=torch.bool, device=device)
    logits = decoder.prefill()
    if sampling.n > 1:
        decoder.keep(live // sampling.n)
        logits = logits[live // sampling.n]
    for step in range(sampling.max_tokens):
        tokens, finite = _choose(logits, dice[live, step], sampling)
        broken[live[~over & ~finite]] = True
        said[live[~over], step] = tokens[~over]
        over |= torch.isin(tokens, end_ids) | ~finite
        if has_stopped is not None:
            for row in (~over).nonzero()[:, 0].tolist():
                over[row] = has_stopped(said[live[row], : step + 1].tolist())
        going = (~over).nonzero()[:, 0]
        if not len(going) or step + 1 == sampling.max_tokens:
            break
        if len(going) <= _COMPACT_AT * len(over):
            decoder.keep(going)
            live, over, tokens = live[going], over[going], tokens[going]
        logits = decoder.step(tokens)
    rows = said.tolist()
    return [
        None if bad else [t for t in row if t >= 0]
        for row, bad in zip(rows, broken.tolist(), strict=True)
    ]


def _dice(seeds: Sequence[int], sampling: Sampling) -> Tensor:
    """A number from [0, 1) for each response and step, from the response's own seed."""
    generator = torch.Generator()
    rows = [
        torch.rand(sampling.max_tokens, generator=generator.manual_seed(seed_of(seed, i)))
        for seed in seeds
        for i in range(sampling.n)
    ]
    return torch.stack(rows).double()


def _choose(logits: Tensor, dice: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The next token of each row, and whether its logits were fit to choose from."""
    finite = logits.amax(-1).isfinite()  # NaN is the largest of all
    if sampling.temperature == 0:
        return logits.argmax(-1), finite
    chances = (logits / sampling.temperature).softmax(-1)
    order = None
    if sampling.top_p < 1:
        chances, order = chances.sort(dim=-1, descending=True, stable=True)
        before = chances.cumsum(-1) - chances
        chances = chances.masked_fill(before >= sampling.top_p, 0.0)
    # The first token at which the running sum exceeds the dice: never one without a chance. In
    # double precision, where a number below 1 times the sum stays below the sum.
    running = chances.cumsum(-1, dtype=torch.float64)
    wanted = dice[:, None] * running[:, -1:]
    at = torch.searchsorted(running, wanted, right=True).clamp_(max=logits.shape[-1] - 1)
    return (at if order is None else order.gather(-1, at))[:, 0], finite
