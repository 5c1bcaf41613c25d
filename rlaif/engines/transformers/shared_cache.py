"""Keys and values while sampling: those of a prompt once for all its responses.

    prompts → one pass over their trie → SharedCache → a step a token, for all responses

The responses of a prompt are a group: their queries attend together to one copy of the prompt's
keys, behind which the group's own tokens are written, step by step. A response sees the prompt and
its own. What a step reads from memory is what decides its speed, and this is least of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlaif.engines.prefix import Pack, Tokens, pack
from rlaif.engines.transformers.attention import Kind, alike, attend_to, attention_in, passing_over
from rlaif.engines.transformers.tree_attention import TreeLayout, padded

_READING = 8
"""What reading a key costs, where multiplying a query with it costs 1: measured on a CPU."""


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """A layer of the library's cache that keeps what it is given for the prompts, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Tensor, Tensor]] = []

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.given.append((keys[0], values[0]))
        return keys, values

    def get_seq_length(self) -> int:
        return 0


class _Through(DynamicLayer):  # type: ignore[misc]
    """A layer of the library's cache that keeps nothing: the attention does."""

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return keys, values

    def get_seq_length(self) -> int:
        return 0


def cache_of(model: Any, kind: type[DynamicLayer]) -> DynamicCache:
    """A cache for a model, all of whose layers are of one kind.

    Raises:
        NotImplementedError: the model has layers that are no attention.
    """
    cache = DynamicCache(config=model.config)
    if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        raise NotImplementedError("layers that are no attention")
    cache.layers = [kind() for _ in range(model.config.get_text_config().num_hidden_layers)]
    return cache


def group_size(n: int, prompt: float, response: float, heads: int) -> int:
    """How many of a prompt's `n` responses are best read together.

    Args:
        n: responses a prompt.
        prompt: its length in tokens.
        response: the length of a response half way.
        heads: queries for each key head.

    Returns:
        A divisor of `n`. Together, the prompt is read once for all; but each query is multiplied
        with the tokens of all responses of the group.
    """
    sizes = [g for g in range(1, n + 1) if n % g == 0]
    return min(sizes, key=lambda g: (prompt + g * response) * (_READING / g + heads))


@dataclass(slots=True)
class _Stored:
    """One layer's keys and values, each of shape (groups, key heads, columns, width)."""

    keys: Tensor
    values: Tensor


@dataclass(slots=True)
class SharedCache:
    """The keys of all groups, and which response sees which.

    Columns 0 to `width` are a prompt's; behind them, each step has one for each place in a group.

    Attributes:
        layers: what each layer has stored.
        width: columns of a prompt, padding included.
        size: places in a group.
        lengths: of each group's prompt, shape (groups,).
        group: which group each row is in, shape (rows,).
        place: which place of it, shape (rows,).
        steps: steps taken.
    """

    layers: list[_Stored]
    width: int
    size: int
    lengths: Tensor
    group: Tensor
    place: Tensor
    steps: int = 0
    _biases: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, kind: Kind) -> Tensor:
        """As `attention.Keys.attend`: a row a response, each with its newest token."""
        stored = self.layers[layer]
        column = self.width + self.steps * self.size + self.place
        stored.keys[self.group, :, column] = k[:, :, 0]
        stored.values[self.group, :, column] = v[:, :, 0]
        rows, heads, _, _ = q.shape
        groups, key_heads = stored.keys.shape[:2]
        each = heads // key_heads
        end = self.width + (self.steps + 1) * self.size
        together = q.new_zeros(groups, self.size, key_heads, each, q.shape[3])
        together[self.group, self.place] = q.reshape(rows, key_heads, each, -1)
        out = attend_to(
            together.transpose(1, 2).reshape(groups, key_heads, self.size * each, -1),
            stored.keys[:, :, :end],
            stored.values[:, :, :end],
            self._bias(kind.window, each, q)[..., :end],
            kind,
        )
        out = out.view(groups, key_heads, self.size, each, -1).transpose(1, 2)
        return out[self.group, self.place].reshape(rows, 1, heads, -1)

    def _bias(self, window: int | None, each: int, like: Tensor) -> Tensor:
        """What is added to the logits, shape (groups, 1, places × each, columns)."""
        farthest = int(self.lengths.max()) + self.steps + 1
        near = window if window is not None and window < farthest else None
        if (near, each) not in self._biases:
            seen = self._seen(near).repeat_interleave(each, dim=1)[:, None]
            bias = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
            self._biases[near, each] = bias.masked_fill_(~seen, torch.finfo(like.dtype).min)
        return self._biases[near, each]

    def _seen(self, window: int | None) -> Tensor:
        """Which columns each place of each group sees, shape (groups, places, columns)."""
        device, columns = self.lengths.device, self.layers[0].keys.shape[2]
        at = torch.arange(columns, device=device)
        place, step = (at - self.width) % self.size, (at - self.width) // self.size
        places = torch.arange(self.size, device=device)
        own = (at >= self.width) & (place == places[:, None])
        prompt = at < self.lengths[:, None]
        seen = own[None] | prompt[:, None]
        if window is None:
            return seen
        where = torch.where(at < self.width, at, self.lengths[:, None] + step)
        distance = self.lengths[:, None] + self.steps - where
        return seen & (distance < window)[:, None]

    def step_done(self) -> None:
        """The rows' newest tokens are stored in all layers; windows move on."""
        self.steps += 1
        self._biases = {key: bias for key, bias in self._biases.items() if key[0] is None}

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone; groups without one are thrown out."""
        alive, group = torch.unique(self.group[rows], return_inverse=True)
        self.group, self.place = group, self.place[rows]
        if len(alive) < len(self.lengths):
            self.lengths = self.lengths[alive]
            self._biases = {key: bias[alive] for key, bias in self._biases.items()}
            for stored in self.layers:
                stored.keys, stored.values = stored.keys[alive], stored.values[alive]


class SharedDecoder:
    """A batch of prompts on its way through a model that attends by `attention.attention_in`.

    Args:
        model: a causal language model in eval mode.
        prompts: token ids.
        n: responses a prompt.
        room: tokens a response at most.
        tokens: the most tokens in a pass over the prompts.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Tokens], n: int, room: int, tokens: int
    ) -> None:
        self.model, self.prompts, self.n, self.room = model, prompts, n, room
        self.tokens = tokens
        self.computed_tokens = 0
        self.through = cache_of(model, _Through)

    def prefill(self) -> Tensor:
        """Logits after each prompt, shape (prompts, vocabulary)."""
        logits = self._prefill([padded(p) for p in pack(self.prompts, self.tokens)])
        if not bool(logits.isfinite().any(-1).all()):
            # One broken prompt can spoil its whole pack: each by itself, then.
            logits = self._prefill(pack(self.prompts, self.tokens, most=1))
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """Logits after one more token a row, shape (rows, vocabulary)."""
        positions = self.cache.lengths[self.cache.group] + self.cache.steps
        with passing_over(self.cache):
            out = self.model(
                input_ids=tokens[:, None],
                position_ids=positions[:, None],
                past_key_values=self.through,
                use_cache=True,
            )
        self.cache.step_done()
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        self.cache.keep(rows)

    def _prefill(self, packs: Sequence[Pack]) -> Tensor:
        cache = cache_of(self.model, _Layer)
        order = torch.from_numpy(np.concatenate([p.sequences for p in packs]))
        logits = torch.cat([self._read(p, cache) for p in packs])
        self.cache = self._store(packs, [layer.given for layer in cache.layers])
        return logits[order.argsort().to(logits.device)]

    def _read(self, p: Pack, cache: DynamicCache) -> Tensor:
        """The logits after the prompts of a pack; its keys and values go to the cache."""
        device = self.model.device
        self.computed_tokens += len(p.input_ids)
        ids, positions, last = (
            torch.from_numpy(x).to(device) for x in (p.input_ids, p.position_ids, p.last)
        )
        with passing_over(TreeLayout(p, device)):
            out = self.model(
                input_ids=ids[None],
                position_ids=positions[None],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=last,
            )
        logits: Tensor = out.logits[0].float()
        return logits

    def _store(self, packs: Sequence[Pack], given: Sequence[Any]) -> SharedCache:
        device, n = self.model.device, self.n
        config = self.model.config.get_text_config()
        heads = config.num_attention_heads // (
            getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        )
        lengths = torch.tensor([len(prompt) for prompt in self.prompts])
        size = group_size(n, float(lengths.float().mean()), self.room / 2, heads)
        width, groups = int(lengths.max()), len(self.prompts) * n // size
        paths = torch.from_numpy(_paths(packs, len(self.prompts), width))
        paths = paths.repeat_interleave(n // size, dim=0).to(device)
        layers = [_stored(parts, paths, self.room * size) for parts in given]
        rows = torch.arange(groups * size, device=device)
        lengths = lengths.repeat_interleave(n // size).to(device)
        return SharedCache(layers, width, size, lengths, rows // size, rows % size)


def _paths(packs: Sequence[Pack], prompts: int, width: int) -> Any:
    """Where each prompt's tokens lie behind a 0 and all packs' tokens, shape (prompts, width)."""
    paths = np.zeros((prompts, width), dtype=np.int64)
    starts = accumulate((len(p.input_ids) for p in packs), initial=1)
    for start, p in zip(starts, packs, strict=False):
        for i, last in zip(p.sequences, p.last, strict=True):
            path = np.flatnonzero(p.ends[: last + 1] > last)
            paths[i, : len(path)] = start + path
    return paths


def _stored(parts: list[tuple[Tensor, Tensor]], paths: Tensor, room: int) -> _Stored:
    """A layer's keys and values laid out by prompt, with room behind each."""
    made = []
    for which in (0, 1):
        first = parts[0][which]  # (key heads, tokens, width)
        nothing = first.new_zeros(len(first), 1, first.shape[2])
        flat = torch.cat([nothing, *(part[which] for part in parts)], dim=1)
        heads, _, width = flat.shape
        states = flat.new_zeros(len(paths), heads, paths.shape[1] + room, width)
        states[:, :, : paths.shape[1]] = flat[:, paths].transpose(0, 1)
        made.append(states)
    parts.clear()
    return _Stored(*made)


_PROBE_STEPS = 3
_LONGEST_PROBE = 1024


@torch.inference_mode()
def can_share(model: Any) -> bool:
    """Whether a model samples over shared keys as it does alone: tried on a few made-up tokens.

    Not every architecture attends by `attention.attention`, and one whose positions do not come
    from its `position_ids` would do so wrongly without a word.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    longest = window + 4 if window < _LONGEST_PROBE else 9
    prompts = [
        [(7 * i + k) % config.vocab_size for i in range(n)] for k, n in enumerate((longest, 5))
    ]
    said = [[(11 * i + k) % config.vocab_size for i in range(_PROBE_STEPS)] for k in range(4)]
    with attention_in(model) as able:
        try:
            shared = _shared_probe(model, prompts, said) if able else None
        # How a model refuses is its own affair (TypeError, ValueError, NotImplementedError, …).
        except Exception:
            shared = None
    if shared is None:
        return False
    device = model.device
    return all(
        alike(shared[row], model(input_ids=torch.tensor([ids], device=device)).logits[0, -1], model)
        for row, ids in enumerate(prompts[row // 2] + said[row] for row in range(4))
    )


def _shared_probe(model: Any, prompts: list[list[int]], said: list[list[int]]) -> Tensor:
    """Logits after two responses to each of two prompts, shape (4, vocabulary)."""
    decoder = SharedDecoder(model, prompts, n=2, room=_PROBE_STEPS, tokens=_LONGEST_PROBE)
    logits = decoder.prefill()
    for tokens in torch.tensor(said, device=model.device).T:
        logits = decoder.step(tokens)
    return logits
