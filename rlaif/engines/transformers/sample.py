"""A batch of prompts → sampled tokens: a decode loop with one random stream a row.

    prompts → Decoder (shared_cache.py, or padded_cache.py) → sample_batch → tokens

Finished rows leave the batch, and no global random state is read or changed: what a row's dice
show follows from its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from rlaif.engines.protocol import Sampling
from rlaif.records import seed_of

_COMPACT_AT = 0.75
"""Finished rows are thrown out once no more than this share of the batch goes on."""


class Decoder(Protocol):
    """One batch on its way through a model: tokens in, logits of the next token out."""

    def prefill(self) -> Tensor:
        """Logits after each prompt, shape (prompts, vocabulary)."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Logits after one more token of each row, shape (rows, vocabulary)."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        ...


@torch.inference_mode()
def sample_batch(
    decoder: Decoder,
    sampling: Sampling,
    seeds: Sequence[int],
    *,
    ends: Collection[int],
    has_stopped: Callable[[list[int]], bool] | None = None,
) -> list[list[int] | None]:
    """Sample `sampling.n` responses to each prompt.

    Args:
        decoder: of the prompts, with `sampling.n` rows for each of them.
        sampling: `stop` is not looked at: see `has_stopped`.
        seeds: one a prompt.
        ends: the ids that end a response.
        has_stopped: whether a response that has come this far is over.

    Returns:
        The responses' tokens, those of the first prompt first, each with its end token if that
        came; None where the logits were not finite.
    """
    logits = decoder.prefill()
    device, total = logits.device, len(logits) * sampling.n
    dice = _dice(seeds, sampling).to(device)
    said = torch.full((total, sampling.max_tokens), -1, device=device)
    broken = torch.zeros(total, dtype=torch.bool, device=device)
    end_ids = torch.tensor(sorted(ends), device=device)
    live = torch.arange(total, device=device)  # which response each row of the batch is
    over = torch.zeros(total, dtype=torch.bool, device=device)
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
