"""The engine that is always there: Hugging Face transformers, in this process, on CPU or GPU.

chats → chat.py → token ids → sample.py → texts              over shared_cache.py
                           └→ score.py  → label probabilities  over tree_attention.py
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from rlaif.engines import checkpoint
from rlaif.engines.answers import (
    NOT_FINITE,
    TOO_LARGE,
    canonical,
    end_ids,
    label_score,
    prepare,
    response,
)
from rlaif.engines.chat import ChatEncoder
from rlaif.engines.kept import Kept
from rlaif.engines.label_tokens import label_token_ids
from rlaif.engines.protocol import Generation, Label, LabelScore, Sampling, Usage
from rlaif.engines.transformers import memory
from rlaif.engines.transformers.attention import attention_in
from rlaif.engines.transformers.budget import Batch, Budget, Plan, by_length
from rlaif.engines.transformers.padded_cache import PaddedDecoder
from rlaif.engines.transformers.sample import sample_batch
from rlaif.engines.transformers.score import Scorer
from rlaif.engines.transformers.shared_cache import SharedDecoder, can_share
from rlaif.errors import EngineError
from rlaif.records import Chat, fingerprint

_MOST_PASSES = 4
"""Forward passes at once, on a CPU."""
_MOST_ROWS = {"cpu": 256, "cuda": 1024}
"""Responses sampled at once: more are no faster."""
_CACHE_BYTES = 2**30
"""Room for keys and values while sampling, on a CPU; on a GPU it is a third of its memory.
Neither looks at what is free now: then the batches, and in bfloat16 the texts, would differ from
run to run."""


class TransformersEngine:
    """A causal language model of the `transformers` library.

    Configuration and tokenizer are read at once, the weights when they are first needed.

    Args:
        model: a folder, or a name on the hub. Weights are loaded from safetensors alone.
        revision: a branch, tag or commit on the hub.
        dtype: "auto", "bfloat16", "float16" or "float32"; see `checkpoint.choose_dtype`.
        trust_remote_code: run Python code that came with the model.
        adapter: a folder with a peft adapter.
        device: "cpu", "cuda", …; by default CUDA where there is one.
        pack: compute what prompts share once; see score.py and shared_cache.py.
        batch_tokens: the most tokens in one forward pass over prompts; None looks up what the
            memory has room for: see memory.py.
        state: a folder that remembers it for the next start; None has none.
        template_arguments: given to the chat template besides the messages, such as
            ``{"enable_thinking": False}``.
        model_arguments: passed to ``AutoModelForCausalLM.from_pretrained`` untouched.

    Raises:
        EngineError: no such model, adapter or dtype, or a tokenizer without a chat template or
            without an end and a padding token.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        adapter: str | None = None,
        device: str | None = None,
        pack: bool = True,
        batch_tokens: int | None = None,
        state: Path | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        **model_arguments: Any,
    ) -> None:
        self.name, self._source = str(model), (str(model), revision, trust_remote_code)
        self._adapter, self._pack = adapter, pack
        self._model_arguments = model_arguments
        if adapter is not None:
            checkpoint.check_adapter(adapter)
        self._config = checkpoint.load_config(*self._source)
        self._device = device or checkpoint.best_device()
        self._dtype = checkpoint.choose_dtype(dtype, self._config, self._device)
        self._given_tokens, self._state = batch_tokens, Kept(state)
        tokenizer = checkpoint.load_tokenizer(*self._source)
        self._pad = _padding_id(tokenizer, self.name)
        self._tokenizer = tokenizer
        self._encoder = ChatEncoder(tokenizer, self.name, template_arguments)
        self.usage = Usage()
        self._counting = Lock()
        self._closed = False

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What decides this engine's output; a local folder counts by what is in it."""
        return {**self._named, "batch_tokens": str(self._tokens)}

    @cached_property
    def _named(self) -> dict[str, str]:
        model, revision, _ = self._source
        return {
            **checkpoint.identity(model, revision, self._config, self._dtype, self._adapter),
            "engine": "transformers",
            "device": self._device.split(":")[0],
            "packed": str(self._pack).lower(),
            "template_arguments": canonical(self._encoder.template_arguments),
            "model_arguments": canonical(self._model_arguments),
        }

    @cached_property
    def _tokens(self) -> int:
        """The most tokens in one forward pass: given, remembered, or what fits now."""
        if self._given_tokens is not None:
            return self._given_tokens
        name = f"batch_tokens-{fingerprint(self._named)}"
        known = self._state.read(name) or {}
        if "batch_tokens" not in known:
            weights = checkpoint.weight_bytes(Path(self.name).expanduser())
            config = self._config.get_text_config()
            fits = memory.batch_tokens(config, self._dtype, self._device, weights, self._passes)
            self._state.write(name, known := {"batch_tokens": fits, "model": self.name})
        return int(known["batch_tokens"])

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """Sample responses; what each row's dice show follows from its own seed alone.

        An answer's surrounding whitespace is stripped; the continuation of an assistant message
        is left as it is. Special tokens are not part of a text. A response's `tokens` count its
        end token, and those of a stop string.
        """
        if len(seeds) != len(chats):
            raise ValueError(f"{len(chats)} chats but {len(seeds)} seeds")
        prompts, out = self._prepare(chats, sampling.max_tokens)
        generations = {i: Generation((), reason) for i, reason in out.items()}

        def work(batch: Batch) -> None:
            generations.update(self._generate(chats, prompts, sampling, seeds, batch))

        def plan(of: Batch, tokens: int) -> Plan:
            room = {i: len(prompts[i]) + sampling.max_tokens for i in of}
            most = _MOST_ROWS.get(self._device.split(":")[0], _MOST_ROWS["cpu"])
            rows = max(1, most // sampling.n)
            batches = by_length(room, of, tokens // sampling.n, rows)
            return [(batch, partial(work, batch)) for batch in batches]

        _ = self._model, self._ends  # loaded here, once, and not by each worker
        with attention_in(self._model) if self._shares else nullcontext():
            for i in self._sampling_budget.run(list(prompts), plan):
                generations[i] = Generation((), TOO_LARGE)
        self._count_halvings()
        return [generations[i] for i in range(len(chats))]

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """The probability of each label as the next token, over the whole vocabulary.

        A label's probability is the sum over its single-token surface forms.

        Raises:
            EngineError: a label whose first form is not a single token, or one of two labels'.
        """
        ids = [torch.tensor(i) for i in label_token_ids(self._tokenizer, labels, self.name)]
        prompts, out = self._prepare(chats, 1)
        scores = {i: LabelScore(None, reason) for i, reason in out.items()}

        def reduce(logprobs: Tensor) -> Tensor:
            return torch.stack([logprobs[:, i.to(logprobs.device)].logsumexp(-1) for i in ids], 1)

        if prompts:
            before = self._scorer.computed_tokens
            rows = self._scorer.logprobs(list(prompts.values()), reduce)
            self.usage.computed_tokens += self._scorer.computed_tokens - before
            self._count_halvings()
            scores.update(zip(prompts, map(label_score, rows), strict=True))
        return [scores[i] for i in range(len(chats))]

    def close(self) -> None:
        """Give back the memory."""
        self._closed = True
        for name in ("_model", "_scorer"):
            self.__dict__.pop(name, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _prepare(
        self, chats: Sequence[Chat], new_tokens: int
    ) -> tuple[dict[int, list[int]], dict[int, str]]:
        """The token ids of the chats that can be served; the reasons of those that cannot."""
        return prepare(
            self._encoder, chats, self.usage, holds=self._context_length, new_tokens=new_tokens
        )

    @cached_property
    def _context_length(self) -> int | None:
        return getattr(self._config.get_text_config(), "max_position_embeddings", None)

    def _generate(
        self,
        chats: Sequence[Chat],
        prompts: Mapping[int, list[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        batch: Batch,
    ) -> dict[int, Generation]:
        n = sampling.n
        decoder = self._decoder([prompts[i] for i in batch], n, sampling.max_tokens)
        rows = sample_batch(
            decoder,
            sampling,
            [seeds[i] for i in batch],
            ends=self._ends,
            has_stopped=self._stop_check(sampling.stop),
        )
        with self._counting:
            self.usage.computed_tokens += decoder.computed_tokens
            self.usage.generated_tokens += sum(len(row or ()) for row in rows)
        return {
            i: self._generation(chats[i], rows[k * n : (k + 1) * n], sampling.stop)
            for k, i in enumerate(batch)
        }

    def _count_halvings(self) -> None:
        parts = (self.__dict__.get(name) for name in ("_scorer", "_sampling_budget"))
        self.usage.halvings = sum(part.halvings for part in parts if part is not None)

    def _decoder(
        self, prompts: Sequence[list[int]], n: int, room: int
    ) -> SharedDecoder | PaddedDecoder:
        if self._shares:
            return SharedDecoder(self._model, prompts, n, room, self._tokens)
        return PaddedDecoder(self._model, prompts, n, room, self._pad)

    @cached_property
    def _shares(self) -> bool:
        return self._pack and can_share(self._model)

    def _generation(
        self, chat: Chat, rows: Sequence[list[int] | None], stop: Sequence[str]
    ) -> Generation:
        if any(row is None for row in rows):
            return Generation((), NOT_FINITE)
        going_on = chat[-1].role == "assistant"
        return Generation(
            tuple(
                response(self._decode(row), row, self._ends, stop, going_on)
                for row in rows
                if row is not None
            )
        )

    def _stop_check(self, stop: Sequence[str]) -> Any:
        """Whether a text holds a stop string: one that the last token completed is near its end."""
        if not stop:
            return None
        reach = 4 + max(len(s.encode()) for s in stop)
        return lambda tokens: any(s in self._decode(tokens[-reach:]) for s in stop)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    @cached_property
    def _model(self) -> Any:
        if self._closed:
            raise EngineError(f"the engine of {self.name} was closed", mend="load it again")
        return checkpoint.load_weights(
            *self._source,
            adapter=self._adapter,
            dtype=self._dtype,
            device=self._device,
            arguments=self._model_arguments,
        )

    @cached_property
    def _scorer(self) -> Scorer:
        passes = self._passes
        return Scorer(self._model, self.name, self._tokens, packing=self._pack, workers=passes)

    @property
    def _passes(self) -> int:
        own_code = self._source[2]  # may keep what it likes between passes
        if self._device != "cpu" or own_code or checkpoint.changes_as_it_reads(self._config):
            return 1
        return min(_MOST_PASSES, torch.get_num_threads())

    @cached_property
    def _sampling_budget(self) -> Budget:
        config = self._config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        a_token = 2 * config.num_hidden_layers * heads * width * self._dtype.itemsize
        room = _CACHE_BYTES
        if self._device.startswith("cuda"):
            room = torch.cuda.get_device_properties(self._device).total_memory // 3
        return Budget(max(1, room // a_token), self.name, self._passes)

    @cached_property
    def _ends(self) -> frozenset[int]:
        """The model's own end tokens and the tokenizer's."""
        return end_ids(self._tokenizer, self._config, self._model.generation_config)


def _padding_id(tokenizer: Any, name: str) -> int:
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise EngineError(
        f"the tokenizer of {name} has neither a padding token nor an end token",
        mend="set tokenizer.pad_token and tokenizer.eos_token and save it again",
    )
