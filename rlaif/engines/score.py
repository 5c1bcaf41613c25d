"""The next-token log-probabilities behind many prompts, with what they share computed once.

    sequences → packs (prefix.py) → rows of a forward pass over tree masks → logits at their ends

Not every architecture honours such a mask, and some ignore it without a word. So each call first
scores a few of its own sequences both packed and alone; where the two differ, or the model
refuses the mask, the call goes on with padded batches. What a call returns follows from the call
alone, not from those before it.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from rlaif.engines.budget import Batch, Budget, Plan, by_length
from rlaif.engines.prefix import Pack, Tokens, pack
from rlaif.engines.tree_mask import MaskForm, mask_forms

LARGEST_PACK = 8192
"""Tokens in a pack at most: its mask has the square of that."""
_MOST_ROWS = 512
_MOST_LOGITS = 2**26
"""Numbers that one pass puts out at most, where it takes several packs."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_HALF_TOLERANCE = 0.1
"""How far packed and separate log-probabilities may lie apart, as a share of their own spread
over the vocabulary (root mean square of both)."""

Rows = list[tuple[float, ...] | None]
Group = Sequence[Pack]
"""The packs of one forward pass, each a row of it."""
Ready = dict[tuple[int, ...], Tensor]
"""What is known already of some groups: log-probabilities by the sequences in the group."""


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
        self._config = model.config.get_text_config()
        self._forms = mask_forms(self._config) if packing else []
        self._takes_last = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._warned = False

    @torch.inference_mode()
    def logprobs(self, sequences: Sequence[Tokens], reduce: Callable[[Tensor], Tensor]) -> Rows:
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

        everything = range(len(sequences))
        form, ready = self._budget.retry(partial(self._choose_form, sequences))
        if form is not None:
            self._budget.run(everything, partial(self._plan_packed, sequences, keep, form, ready))
            # One broken sequence can spoil its whole pack: see which are broken by themselves.
            odd = [i for i, row in enumerate(rows) if row and not all(map(math.isfinite, row))]
            self._budget.run(odd, partial(self._plan_padded, sequences, keep, most_rows=1))
        else:
            self._budget.run(everything, partial(self._plan_padded, sequences, keep))
        return rows

    def _plan_packed(
        self,
        sequences: Sequence[Tokens],
        keep: Callable[[Batch, Tensor], None],
        form: MaskForm,
        ready: Ready,
        of: Batch,
        tokens: int,
    ) -> Plan:
        def work(batch: Batch, group: Group) -> None:
            known = ready.pop(tuple(batch), None)
            keep(batch, self._packed(group, form) if known is None else known)

        groups = self._groups([sequences[i] for i in of], tokens)
        batches = [[of[i] for i in _held(group)] for group in groups]
        return [(b, partial(work, b, group)) for b, group in zip(batches, groups, strict=True)]

    def _plan_padded(
        self,
        sequences: Sequence[Tokens],
        keep: Callable[[Batch, Tensor], None],
        of: Batch,
        tokens: int,
        most_rows: int = _MOST_ROWS,
    ) -> Plan:
        def work(batch: Batch) -> None:
            keep(batch, self._padded([sequences[i] for i in batch]))

        batches = by_length([len(s) for s in sequences], of, tokens, most_rows)
        return [(b, partial(work, b)) for b in batches]

    def _groups(self, sequences: Sequence[Tokens], tokens: int) -> list[Group]:
        # In units of a token's matrix products (24 h² a layer), attention to one other token
        # costs 4 h / 24 h²; on a GPU, better kernels and dearer launches make it matter less.
        square_cost = 1 / (6 * self._config.hidden_size)
        if self.model.device.type != "cpu":
            square_cost /= 4
        packs = pack(sequences, min(tokens, LARGEST_PACK), square_cost)
        # Every row's logits are taken where any row of its pass ends a sequence.
        most_ends = max(len(p.sequences) for p in packs)
        rows = math.isqrt(_MOST_LOGITS // self._config.vocab_size // most_ends)
        lengths = [len(p.input_ids) for p in packs]
        batches = by_length(lengths, range(len(packs)), tokens, max(1, min(rows, _MOST_ROWS)))
        return [[packs[i] for i in batch] for batch in batches]

    def _packed(self, group: Group, form: MaskForm) -> Tensor:
        """Log-probabilities after each sequence of a group, shape (sequences, vocabulary)."""
        device, width = self.model.device, max(len(p.input_ids) for p in group)
        ids, positions = (torch.zeros(len(group), width, dtype=torch.long) for _ in range(2))
        ends = torch.arange(1, width + 1).repeat(len(group), 1)  # padding sees itself alone
        for row, p in enumerate(group):
            part = slice(len(p.input_ids))
            ids[row, part], positions[row, part], ends[row, part] = (
                torch.from_numpy(x) for x in (p.input_ids, p.position_ids, p.ends)
            )
        rows = torch.cat([torch.full((len(p.last),), i) for i, p in enumerate(group)])
        places = torch.cat([torch.from_numpy(p.last) for p in group])
        last, which = torch.unique(places, return_inverse=True)
        ids, positions, ends = ids.to(device), positions.to(device), ends.to(device)
        out = self._forward(
            last.to(device),
            input_ids=ids,
            position_ids=positions,
            attention_mask=form.mask(ends, positions, self.model.dtype),
        )
        return torch.log_softmax(out[rows.to(device), which.to(device)].float(), dim=-1)

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

    def _choose_form(
        self, sequences: Sequence[Tokens], tokens: int
    ) -> tuple[MaskForm | None, Ready]:
        """The form of mask to pack a call with; None where packing is wrong or saves nothing."""
        if not self._forms or len(sequences) < 2:
            return None, {}
        groups = self._groups(sequences, tokens)
        probes = _probes(sequences, groups)
        cost = sum(len(g) * max(len(p.input_ids) for p in g) for g in groups)
        if cost + sum(len(sequences[i]) for i, _ in probes) >= sum(map(len, sequences)):
            return None, {}
        alone = [self._padded([sequences[i]])[0] for i, _ in probes]
        for form in list(self._forms):
            ready = self._try(form, [group for _, group in probes])
            if ready and all(
                self._agree(ready[_held(group)][_held(group).index(i)], wanted)
                for (i, group), wanted in zip(probes, alone, strict=True)
            ):
                return form, ready
        self._warn()
        return None, {}

    def _try(self, form: MaskForm, groups: Sequence[Group]) -> Ready:
        """What a form gives for these groups; nothing, and never again, if the model refuses it."""
        try:
            return {key: self._packed(g, form) for key, g in {_held(g): g for g in groups}.items()}
        except torch.OutOfMemoryError:
            raise
        # How a model refuses a mask is its own affair (TypeError, ValueError, KeyError, …).
        except Exception:
            self._forms.remove(form)
            return {}

    def _agree(self, packed: Tensor, alone: Tensor) -> bool:
        known = alone.isfinite()  # where it is not, there is nothing to compare with
        difference = (packed - alone)[known].square().mean().sqrt()
        tolerance = _TOLERANCE.get(self.model.dtype, _HALF_TOLERANCE)
        return not known.any() or bool(difference <= tolerance * alone[known].std())

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.name} does not take packed prompts: scoring them in padded batches, which "
                "computes what they share again and again",
                RuntimeWarning,
                stacklevel=2,
            )


def _held(group: Group) -> tuple[int, ...]:
    """The sequences of a group, in order."""
    return tuple(int(i) for p in group for i in p.sequences)


def _probes(sequences: Sequence[Tokens], groups: Sequence[Group]) -> list[tuple[int, Group]]:
    """The sequences that a wrong mask would harm most, each with its group.

    The last of the largest pack has the most strangers before it; the longest reaches farthest
    beyond a sliding window.
    """
    _, largest, group = max(
        ((len(p.input_ids), p, g) for g in groups for p in g), key=lambda found: found[0]
    )
    longest = max(range(len(sequences)), key=lambda i: len(sequences[i]))
    home = next(g for g in groups for p in g if longest in p.sequences)
    probes = {int(largest.sequences[-1]): group, longest: home}
    return list(probes.items())
