"""One attention function for all layers of a model, over whatever keys a forward pass has prepared.

    tree_attention.TreeLayout ─┐
                               ├→ passing_over(…) → attention, called by each layer
    shared_cache.SharedCache ──┘

The layers of a `transformers` model look their attention up in a table, by a name. `attention_in`
enters ours for a while; `passing_over` says, for one thread, what a pass is over. No mask is made
by the library then: which token sees which is known to what the pass is over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "rlaif_shared"

_now = threading.local()
"""What the forward pass that this thread is in is over."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a layer asks of attention.

    Attributes:
        scaling: of the logits; None is 1 / √width.
        window: how many tokens back a token sees, itself included; None is all.
        cap: logits are kept within ± this, as in Gemma 2; None leaves them.
    """

    scaling: float | None
    window: int | None
    cap: float | None


class Keys(Protocol):
    """What a forward pass is over."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, kind: Kind) -> Tensor:
        """A layer's attention.

        Args:
            layer: the layer's number.
            q: queries, shape (rows, heads, tokens, width).
            k: keys of the same tokens, shape (rows, key heads, tokens, width).
            v: their values, shape (rows, key heads, tokens, value width).
            kind: what the layer asks for.

        Returns:
            Shape (rows, tokens, heads, value width).
        """
        ...


def attention(
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
    """An attention function as `transformers` calls it, over the keys of `passing_over`.

    Args:
        module: the layer's attention.
        query: as `Keys.attend`, like the rest.
        key: likewise.
        value: likewise.
        attention_mask: not looked at.
        scaling: likewise.
        dropout: not looked at: a model that scores or samples is in eval mode.
        sliding_window: likewise.
        softcap: likewise.
        others: what only other kernels need, or what this one does not do.

    Raises:
        NotImplementedError: the layer asks for what is not done here.
    """
    asked = [name for name in ("s_aux", "position_bias", "sinks") if others.get(name) is not None]
    if asked or not getattr(module, "is_causal", True):
        raise NotImplementedError(
            f"no {', '.join(asked) or 'attention both ways'} over shared keys"
        )
    keys: Keys = _now.keys
    kind = Kind(scaling, sliding_window, softcap)
    return keys.attend(int(getattr(module, "layer_idx", 0)), query, key, value, kind), None


def attend_to(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, kind: Kind) -> Tensor:
    """Plain attention.

    Args:
        q: shape (rows, heads, queries, width).
        k: shape (rows, key heads, keys, width).
        v: shape (rows, key heads, keys, value width).
        mask: what is seen: booleans, or numbers to add to the logits; broadcast to
            (rows, heads, queries, keys).
        kind: what the layer asks for; the window is the mask's affair.

    Returns:
        Shape (rows, heads, queries, value width).
    """
    groups = q.shape[1] // k.shape[1]
    if kind.cap is None:
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=kind.scaling, enable_gqa=groups > 1
        )
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scaling = q.shape[3] ** -0.5 if kind.scaling is None else kind.scaling
    logits = (torch.tanh(q @ k.transpose(2, 3) * scaling / kind.cap) * kind.cap).float()
    seen = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return seen.softmax(-1).to(q.dtype) @ v


_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_HALF_TOLERANCE = 0.1


def alike(found: Tensor, wanted: Tensor, model: Any) -> bool:
    """Whether two rows of logits, or log-probabilities, are the same but for rounding.

    Args:
        found: shape (vocabulary,).
        wanted: likewise; where it is not finite, there is nothing to compare with.
        model: what gave them: its dtype says how far they may lie apart, as a share of their own
            spread over the vocabulary (root mean square of both).
    """
    known = wanted.isfinite()
    if known.sum() < 2:
        return True
    found, wanted = found[known].float(), wanted[known].float()
    found, wanted = found - found.mean(), wanted - wanted.mean()  # logits: up to a constant
    difference = (found - wanted).square().mean().sqrt()
    return bool(difference <= _TOLERANCE.get(model.dtype, _HALF_TOLERANCE) * wanted.std())


@contextmanager
def attention_in(model: Any) -> Iterator[bool]:
    """Let a model's layers attend this way; whether they do, since not every architecture can."""
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
def passing_over(keys: Keys) -> Iterator[None]:
    """The forward passes of this thread in here are over these keys."""
    _now.keys = keys
    try:
        yield
    finally:
        del _now.keys


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
