"""vLLM in this process: for many prompts, large models and several GPUs; worker.py runs it.

chats → chat.py → token ids, in the order of their trie → vLLM's prefix cache → texts and
label probabilities

It needs no more of this package than chats, hashes and errors, so that it can run under an
interpreter that has vLLM and not what training needs.
"""

from __future__ import annotations

import gc
import math
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import util
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from rlaif.engines import checkpoint
from rlaif.engines import vllm_settings as settings
from rlaif.engines.answers import NOT_FINITE, canonical, end_ids, label_score, prepare, response
from rlaif.engines.chat import ChatEncoder
from rlaif.engines.label_tokens import label_token_ids
from rlaif.engines.protocol import Generation, Label, LabelScore, Sampling, Usage
from rlaif.errors import EngineError, MissingExtraError
from rlaif.records import Chat, Response, seed_of


class VllmEngine:
    """A causal language model run by vLLM's offline `LLM`.

    Configuration and tokenizer are read at once, vLLM itself and the weights when they are first
    needed.

    Args:
        model: a folder, or a name on the hub. Weights are loaded from safetensors alone.
        revision: a branch, tag or commit on the hub.
        dtype: "auto", "bfloat16", "float16" or "float32"; see `checkpoint.choose_dtype`.
        trust_remote_code: run Python code that came with the model.
        adapter: a folder with a peft adapter of LoRA; it is served, not merged.
        template_arguments: given to the chat template besides the messages, such as
            ``{"enable_thinking": False}``.
        engine_arguments: passed to ``vllm.LLM`` untouched. What they leave out is vLLM's default;
            on a CPU it is what was measured to be fastest there.

    Raises:
        EngineError: no such model, adapter or dtype, or a tokenizer without a chat template.
        MissingExtraError: no vLLM under this interpreter.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        adapter: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        **engine_arguments: Any,
    ) -> None:
        if util.find_spec("vllm") is None:
            raise MissingExtraError("the engine vllm", "vllm")
        self.name, self._source = str(model), (str(model), revision, trust_remote_code)
        self._adapter = adapter
        if adapter is not None:
            checkpoint.check_adapter(adapter)
        self._config = checkpoint.load_config(*self._source)
        self._device = settings.device()
        self._dtype = checkpoint.choose_dtype(dtype, self._config, self._device)
        self._arguments = settings.arguments(
            engine_arguments, self._config, self._dtype, self._device, adapter
        )
        self._tokenizer = checkpoint.load_tokenizer(*self._source)
        self._encoder = ChatEncoder(self._tokenizer, self.name, template_arguments)
        self.usage = Usage()
        self._scored_last = False
        self._closed = False

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What decides this engine's output; a local folder counts by what is in it."""
        model, revision, _ = self._source
        return {
            **checkpoint.identity(model, revision, self._config, self._dtype, self._adapter),
            "engine": "vllm",
            "device": self._device,
            "template_arguments": canonical(self._encoder.template_arguments),
            "engine_arguments": canonical(self._arguments),
            "vllm": settings.version(),
        }

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """Sample responses; what each row's dice show follows from its own seed alone.

        An answer's surrounding whitespace is stripped; the continuation of an assistant message
        is left as it is. Special tokens are not part of a text. A response's `tokens` count its
        end token, and those of a stop string.

        Raises:
            EngineError: vLLM cannot load the model, or failed.
        """
        if len(seeds) != len(chats):
            raise ValueError(f"{len(chats)} chats but {len(seeds)} seeds")
        prompts, out = self._prepare(chats, sampling.max_tokens)
        self._begin(scores=False)
        rows = [i for i in _by_trie(prompts) for _ in range(sampling.n)]
        outputs = self._run(
            [prompts[i] for i in rows],
            [self._sampling(sampling, seeds[i], k % sampling.n) for k, i in enumerate(rows)],
        )
        said: dict[int, list[Response | None]] = {i: [] for i in prompts}
        for i, output in zip(rows, outputs, strict=True):
            said[i].append(self._response(chats[i], output.outputs[0], sampling.stop))
        self._drop_not_finite(prompts, rows, outputs, said)
        generations = {i: Generation((), reason) for i, reason in out.items()}
        generations |= {i: _generation(responses) for i, responses in said.items()}
        return [generations[i] for i in range(len(chats))]

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """The probability of each label as the next token, over the whole vocabulary.

        A label's probability is the sum over its single-token surface forms.

        Raises:
            EngineError: a label whose first form is not a single token, or one of two labels';
                vLLM cannot load the model, or failed.
        """
        ids = label_token_ids(self._tokenizer, labels, self.name)
        prompts, out = self._prepare(chats, 1)
        self._begin(scores=True)
        scores = {i: LabelScore(None, reason) for i, reason in out.items()}
        different = {_key(prompt): i for i, prompt in prompts.items()}  # equal ones are asked once
        rows = _by_trie({i: prompts[i] for i in different.values()})
        found = self._next_logprobs([prompts[i] for i in rows], [x for row in ids for x in row])
        read = {
            i: label_score([_log_sum(all_[x] for x in row) for row in ids])
            for i, all_ in zip(rows, found, strict=True)
        }
        scores |= {i: read[different[_key(prompt)]] for i, prompt in prompts.items()}
        return [scores[i] for i in range(len(chats))]

    def close(self) -> None:
        """End vLLM's own processes, if it has any, and give back the memory."""
        self._closed = True
        llm = self.__dict__.pop("_llm", None)
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _prepare(
        self, chats: Sequence[Chat], new_tokens: int
    ) -> tuple[dict[int, list[int]], dict[int, str]]:
        return prepare(
            self._encoder,
            chats,
            self.usage,
            holds=self._llm.model_config.max_model_len if chats else None,
            new_tokens=new_tokens,
            last_needs_room=True,
        )

    def _begin(self, *, scores: bool) -> None:
        """Forget the prefixes of other calls: what was cached decides how a row is computed.

        So a shard's output follows from the shard alone. Scores after texts are of the same
        shard: a judge that reasons is asked for its label where its reasons end.
        """
        if "_llm" in self.__dict__ and (self._scored_last or not scores):
            self._llm.reset_prefix_cache()
        self._scored_last = scores

    def _run(self, prompts: Sequence[list[int]], params: Any) -> list[Any]:
        if not prompts:
            return []
        try:
            outputs: list[Any] = self._llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts],
                params,
                use_tqdm=False,
                lora_request=self._lora_request,
            )
        except Exception as error:
            raise settings.engine_error(
                "vLLM failed on", self.name, error, settings.RESUME
            ) from error
        for output in outputs:
            cached = output.num_cached_tokens or 0
            self.usage.computed_tokens += len(output.prompt_token_ids) - cached
        return outputs

    def _sampling(self, sampling: Sampling, seed: int, index: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=seed_of(seed, index) if sampling.temperature > 0 else None,
            stop=list(sampling.stop),
            stop_token_ids=sorted(self._ends),
            detokenize=bool(sampling.stop),  # the text is ours to read; theirs finds the stop
            spaces_between_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _next_logprobs(
        self, prompts: Sequence[list[int]], ids: Sequence[int]
    ) -> list[dict[int, float]]:
        """The log-probability of each of some tokens as the next one."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprob_token_ids=list(ids),
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        found = (output.outputs[0].logprobs for output in self._run(prompts, params))
        return [dict(zip(flat.token_ids, flat.logprobs, strict=True)) for flat in found]

    def _response(self, chat: Chat, output: Any, stop: Sequence[str]) -> Response:
        tokens = list(output.token_ids)
        self.usage.generated_tokens += len(tokens)
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return response(text, tokens, self._ends, stop, chat[-1].role == "assistant")

    def _drop_not_finite(
        self,
        prompts: Mapping[int, list[int]],
        rows: Sequence[int],
        outputs: Sequence[Any],
        said: Mapping[int, list[Response | None]],
    ) -> None:
        """Take out responses that a model without finite logits made.

        vLLM does not look at them. Its choice is then the first token of the vocabulary, again
        and again, so a response that ends in it is computed once more to its last token.
        """
        tails = {
            k: [*prompts[rows[k]], *output.outputs[0].token_ids[:-1]]
            for k, output in enumerate(outputs)
            if output.outputs[0].token_ids[-1] == 0
        }
        found = self._next_logprobs(list(tails.values()), [0])
        for k, logprobs in zip(tails, found, strict=True):
            if not math.isfinite(logprobs[0]):
                said[rows[k]][:] = [None]

    @cached_property
    def _llm(self) -> Any:
        if self._closed:
            raise EngineError(f"the engine of {self.name} was closed", mend="load it again")
        model, revision, trust_remote_code = self._source
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if self._arguments.get("distributed_executor_backend") == "uni":
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        try:
            from vllm import LLM

            return LLM(
                **{
                    "model": model,
                    "revision": revision,
                    "trust_remote_code": trust_remote_code,
                    "dtype": str(self._dtype).removeprefix("torch."),
                    "load_format": "safetensors",
                }
                | self._arguments
            )
        except Exception as error:
            raise settings.engine_error("vLLM cannot load", self.name, error) from error

    @cached_property
    def _lora_request(self) -> Any:
        if self._adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, str(Path(self._adapter).absolute()))

    @cached_property
    def _ends(self) -> frozenset[int]:
        model, revision, trust_remote_code = self._source
        try:
            own = GenerationConfig.from_pretrained(
                model, revision=revision, trust_remote_code=trust_remote_code
            )
        except OSError:  # a model need not have one
            own = None
        return end_ids(self._tokenizer, self._config, own)


def _key(prompt: Sequence[int]) -> bytes:
    """Sorts prompts so that equal prefixes lie together; bytes compare the fastest."""
    return array("i", prompt).tobytes()


def _by_trie(prompts: Mapping[int, list[int]]) -> list[int]:
    return sorted(prompts, key=lambda i: _key(prompts[i]))


def _generation(responses: Sequence[Response | None]) -> Generation:
    if any(r is None for r in responses):
        return Generation((), NOT_FINITE)
    return Generation(tuple(r for r in responses if r is not None))


def _log_sum(terms: Iterable[float]) -> float:
    """Log Σ e^x; NaN if one of them is."""
    logs = list(terms)
    most = max(logs)
    if any(map(math.isnan, logs)) or most == -math.inf:
        return math.nan
    return most + math.log(math.fsum(math.exp(x - most) for x in logs))
