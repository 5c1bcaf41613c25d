"""The next-token log-probabilities behind many prompts, with what they share computed once.

    sequences → packs (prefix.py) → forward passes over trees (tree_attention.py) → logits at ends

Not every architecture can attend over a tree, and one whose positions do not come from its
`position_ids` would do so wrongly without a word. So each call first scores a few of its own
sequences both packed and alone; where the two differ, the call goes on with padded batches. What a
call returns follows from the call alone, not from those before it.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlaif.engines.prefix import Pack, Tokens, pack
from rlaif.engines.transformers.attention import alike, attention_in, passing_over
from rlaif.engines.transformers.budget import Batch, Budget, Plan, by_length
from rlaif.engines.transformers.tree_attention import TreeLayout, padded

_MOST_ROWS = 512
_MOST_LOGITS = 2**26
"""Numbers that one pass puts out at most: its sequences times the vocabulary."""

Rows = list[tuple[float, ...] | None]
Reduce = Callable[[Tensor], Tensor]
Keep = Callable[[Batch, Tensor], None]
Packs = Callable[[int], list[Pack]]
"""The packs of a call's sequences, by the most tokens in one."""
Ready = dict[tuple[int, ...], Tensor]
"""What is known already of some packs: log-probabilities by the sequences in the pack."""


class Scorer:
    """Reads next-token log-probabilities from one model.

    Args:
        model: a causal language model in eval mode.
        name: its name, for warnings.
        tokens: the most tokens in one forward pass.
        packing: whether to share prefixes at all.
        workers: how many forward passes at once, as in `Budget`.

    Attributes:
        computed_tokens: how many tokens were run through the model so far, padding included.
    """

    def __init__(
        self, model: Any, name: str, tokens: int, *, packing: bool = True, workers: int = 1
    ) -> None:
        self.model, self.name = model, name
        self.computed_tokens = 0
        self._counting = Lock()
        self._budget = Budget(tokens, name, workers)
        self._packing = packing
        self._most = max(1, _MOST_LOGITS // model.config.get_text_config().vocab_size)
        self._takes_last = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._warned = False

    @property
    def halvings(self) -> int:
        """How often the tokens in a pass were halved, because memory had run out."""
        return self._budget.halvings

    @torch.inference_mode()
    def logprobs(self, sequences: Sequence[Tokens], reduce: Reduce) -> Rows:
        """What `reduce` makes of the log-probabilities of the token after each sequence.

        Args:
            sequences: token ids, none of them empty.
            reduce: from float32 log-probabilities of shape (rows, vocabulary) to (rows, k).

        Returns:
            The `k` numbers of each sequence; not finite where the logits are not; None for one
            that does not fit into the device's memory.
        """
        rows: Rows = [None] * len(sequences)

        def keep(indices: Batch, logprobs: Tensor) -> None:
            for i, row in zip(indices, reduce(logprobs).tolist(), strict=True):
                rows[i] = tuple(row)

        if self._in_packs(sequences, keep):
            # One broken sequence can spoil its whole pack: see which are broken by themselves.
            odd = [i for i, row in enumerate(rows) if row and not all(map(math.isfinite, row))]
            self._budget.run(odd, partial(self._plan_padded, sequences, keep, most_rows=1))
        else:
            self._budget.run(range(len(sequences)), partial(self._plan_padded, sequences, keep))
        return rows

    def _in_packs(self, sequences: Sequence[Tokens], keep: Keep) -> bool:
        """Score a call in packs, and say so; where that is wrong or saves nothing, keep nothing."""
        if not self._packing or len(sequences) < 2:
            return False
        packs = cache(partial(self._packs, sequences))
        alone = self._budget.retry(partial(self._probe, sequences, packs))
        if not alone:
            return False
        with attention_in(self.model) as able:
            ready = self._budget.retry(partial(self._try, packs, alone)) if able else {}
            agree = bool(ready) and self._agree(ready, alone)
            if agree is False:
                self._warn()
            if not agree:
                return False
            plan = partial(self._plan_packed, sequences, packs, keep, ready)
            self._budget.run(range(len(sequences)), plan)
        return True

    def _probe(
        self, sequences: Sequence[Tokens], packs_of: Packs, tokens: int
    ) -> dict[int, Tensor]:
        """A few sequences, scored alone; none where packing saves nothing."""
        packs = packs_of(tokens)
        probes = _probes(sequences, packs, tokens)
        cost = sum(len(p.input_ids) for p in packs) + sum(len(sequences[i]) for i in probes)
        if cost >= sum(map(len, sequences)):
            return {}
        return {i: self._padded([sequences[i]])[0] for i in probes}

    def _plan_packed(
        self,
        sequences: Sequence[Tokens],
        packs_of: Packs,
        keep: Keep,
        ready: Ready,
        of: Batch,
        tokens: int,
    ) -> Plan:
        def work(batch: Batch, p: Pack) -> None:
            known = ready.pop(tuple(batch), None)
            keep(batch, self._packed(p) if known is None else known)

        everything = len(of) == len(sequences)
        packs = packs_of(tokens) if everything else self._packs([sequences[i] for i in of], tokens)
        batches = [[of[i] for i in p.sequences] for p in packs]
        return [(b, partial(work, b, p)) for b, p in zip(batches, packs, strict=True)]

    def _plan_padded(
        self,
        sequences: Sequence[Tokens],
        keep: Keep,
        of: Batch,
        tokens: int,
        most_rows: int = _MOST_ROWS,
    ) -> Plan:
        def work(batch: Batch) -> None:
            keep(batch, self._padded([sequences[i] for i in batch]))

        batches = by_length([len(s) for s in sequences], of, tokens, most_rows)
        return [(b, partial(work, b)) for b in batches]

    def _packs(self, sequences: Sequence[Tokens], tokens: int) -> list[Pack]:
        return pack(sequences, tokens, self._most)

    def _packed(self, p: Pack) -> Tensor:
        """Log-probabilities after each sequence of a pack, shape (sequences, vocabulary)."""
        device, p = self.model.device, padded(p)
        last, which = np.unique(p.last, return_inverse=True)
        ids, positions, ends = (
            torch.from_numpy(x).to(device) for x in (p.input_ids, p.position_ids, last)
        )
        with passing_over(TreeLayout(p, device)):
            out = self._forward(ends, input_ids=ids[None], position_ids=positions[None])[0]
        logprobs = torch.log_softmax(out.float(), dim=-1)
        return logprobs if len(last) == len(which) else logprobs[torch.from_numpy(which).to(device)]

    def _padded(self, sequences: Sequence[Tokens]) -> Tensor:
        """The same, each sequence a row, padded on the right: no token sees what follows it."""
        device = self.model.device
        ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, sequence in enumerate(sequences):
            ids[i, : len(sequence)] = torch.as_tensor(sequence)
            mask[i, : len(sequence)] = 1
        last, which = torch.unique(mask.sum(1) - 1, return_inverse=True)
        ids, mask, last = ids.to(device), mask.to(device), last.to(device)
        out = self._forward(last, input_ids=ids, attention_mask=mask)
        out = out[torch.arange(len(ids), device=device), which.to(device)]
        return torch.log_softmax(out.float(), dim=-1)

    def _forward(self, last: Tensor, **inputs: Any) -> Tensor:
        """Logits at these places, shape (batch, places, vocabulary)."""
        with self._counting:
            self.computed_tokens += inputs["input_ids"].numel()
        if self._takes_last:
            logits: Tensor = self.model(**inputs, logits_to_keep=last, use_cache=False).logits
            return logits
        logits = self.model(**inputs, use_cache=False).logits[:, last]
        return logits

    def _try(self, packs_of: Packs, probes: Collection[int], tokens: int) -> Ready:
        """The packs that hold the probes, scored; none, and never again, if the model cannot."""
        held = [p for p in packs_of(tokens) if set(probes) & set(p.sequences.tolist())]
        try:
            return {tuple(int(i) for i in p.sequences): self._packed(p) for p in held}
        except torch.OutOfMemoryError:
            raise
        # How a model refuses is its own affair (TypeError, ValueError, NotImplementedError, …).
        except Exception:
            self._packing = False
            return {}

    def _agree(self, ready: Ready, alone: Mapping[int, Tensor]) -> bool | None:
        """Whether packed and separate scores are the same; None where no probe can tell."""
        packed = {i: row for held, rows in ready.items() for i, row in zip(held, rows, strict=True)}
        # A broken sequence spoils its neighbours in a pack: that says nothing of the model.
        whole = [i for i in alone if packed[i].isfinite().any() and alone[i].isfinite().any()]
        return all(alike(packed[i], alone[i], self.model) for i in whole) if whole else None

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.name} does not take packed prompts: scoring them in padded batches, which "
                "computes what they share again and again",
                RuntimeWarning,
                stacklevel=2,
            )


def _probes(sequences: Sequence[Tokens], packs: Sequence[Pack], tokens: int) -> list[int]:
    """The sequences that attention to the wrong tokens would harm most.

    The last of the largest pack has the most strangers before it; the longest reaches farthest
    beyond a sliding window. One that is longer than a pass may not fit into one.
    """
    largest = max(packs, key=lambda p: len(p.input_ids))
    short = [i for i, sequence in enumerate(sequences) if len(sequence) <= tokens]
    longest = max(short, key=lambda i: len(sequences[i]), default=int(largest.sequences[-1]))
    return list(dict.fromkeys([int(largest.sequences[-1]), longest]))
