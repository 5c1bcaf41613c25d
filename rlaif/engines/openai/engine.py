"""Models behind any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, or a hosted API.

    chats → prompts (prompts) → requests → answers (client, or batch)
          → responses (answers), label probabilities (labels)

Stages call it like any other engine. Requests are sent in an order in which those that share a
beginning are neighbours, so that the server's prefix cache hits.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rlaif.errors import EngineError, MissingExtraError

try:
    import openai as _openai  # noqa: F401
except ImportError as error:
    raise MissingExtraError("the openai engine", "openai") from error

from rlaif.engines.answers import canonical
from rlaif.engines.kept import Kept
from rlaif.engines.openai import probe
from rlaif.engines.openai.answers import count, generation
from rlaif.engines.openai.batch import Batches
from rlaif.engines.openai.client import Client
from rlaif.engines.openai.failures import Answer
from rlaif.engines.openai.http import Request
from rlaif.engines.openai.labels import LabelSource
from rlaif.engines.openai.loop import LoopThread, T
from rlaif.engines.openai.probe import Server
from rlaif.engines.openai.prompts import MessagePrompts, Prompt, Prompts, TokenPrompts
from rlaif.engines.openai.question import Question
from rlaif.engines.openai.requests import Requests, sampling_settings
from rlaif.engines.openai.spending import Prices, Spending, amount
from rlaif.engines.protocol import Generation, Label, LabelScore, Sampling, Usage
from rlaif.records import Chat, fingerprint


class OpenAIEngine:
    """One model at one server.

    How label probabilities are read decides what they are, so it is settled before the first
    shard, kept in `state`, and part of `identity["labels"]`. With ``labels="auto"`` the first way
    is taken that the server has: "logprob_token_ids" (with a tokenizer; exact), "top_logprobs k"
    for the largest k of 20, 10, 5 and 2, or "frequency 16" over answers that can only be label
    words; see labels.py. Asking for one of them by name needs no server to say so.

    vLLM on a CPU ends when a seeded request's prefill is split: start its server with
    ``--no-enable-chunked-prefill`` and ``--max-num-batched-tokens`` no less than its context, or
    sample without seeds by ``extra_body={"seed": None}``.

    The key comes from the environment alone. It is written nowhere, and is cut out of whatever a
    server says.

    Args:
        model: the name that the server serves.
        base_url: of the server, up to and with ``/v1``; no credentials in it.
        revision: what is served, where the name alone does not say; fingerprinted.
        api_key_env: the environment variable with the key; by default OPENAI_API_KEY, which may
            be unset for a server that needs none.
        served_as: a name for the server to be fingerprinted by in place of its address, so that
            the same model at another port is the same judge.
        tokenizer: the model's tokenizer, a folder or a name on the hub: chats are then sent as
            token ids, and nothing that a message says can be a control token.
        template_arguments: with a tokenizer: given to the chat template besides the messages.
        labels: how label probabilities are read.
        continues: without a tokenizer: the server continues a chat that ends with an assistant
            message; by default only vLLM and SGLang are trusted to.
        concurrency: at most so many requests are in flight.
        max_retries: of each request, with back-off.
        timeout: seconds that one try may take as a whole.
        prices: of a million tokens: ``{"input": …, "output": …}``, and where they differ
            "cached_input" and "batch" (the share of these prices that a batch costs, 0.5).
        max_spend: a cap in the prices' currency, over all processes of a run. It is never passed.
        batch: answer through the server's batch endpoint.
        batch_poll: seconds between two looks at a batch.
        extra_body: put into every request untouched, over what the engine puts there; a setting
            that is null there is left out, such as ``seed`` for a server that refuses it.
        state: a folder for what outlives a process: the spend, batches, how labels are read.

    Raises:
        EngineError: an argument that cannot be, or a key that is named and not set.
        MissingExtraError: the `openai` package is not installed.
    """

    def __init__(
        self,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        revision: str | None = None,
        api_key_env: str | None = None,
        served_as: str | None = None,
        tokenizer: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        labels: str = "auto",
        continues: bool | None = None,
        concurrency: int = 64,
        max_retries: int = 6,
        timeout: float = 300.0,
        prices: Mapping[str, Any] | None = None,
        max_spend: float | None = None,
        batch: bool = False,
        batch_poll: float = 30.0,
        extra_body: Mapping[str, Any] | None = None,
        state: Path | None = None,
    ) -> None:
        self.name, self._revision, self._extra = model, revision or "", dict(extra_body or {})
        self._labels = None if labels == "auto" else LabelSource.read(labels)
        self._arguments = dict(template_arguments or {})
        _check(concurrency, max_retries, timeout, batch_poll)
        if api_key_env is not None and not os.environ.get(api_key_env):
            raise EngineError("is not set", key=api_key_env, mend=f"export {api_key_env}=…")
        if batch and state is None:
            raise EngineError(
                "needs a folder to keep its state in", key="batch",
                mend="give OpenAIEngine(state=…), or run it in a recipe",
            )  # fmt: skip
        self._prompts = self._prompt_form(tokenizer, continues)
        self._requests = Requests(model, self._prompts, self._extra)
        self._kept = Kept(state)
        key = fingerprint([served_as or base_url, model])
        spending = Spending(
            self._kept,
            f"spend-{key}",
            None if prices is None else Prices.read(prices),
            None if max_spend is None else amount("max_spend", max_spend),
        )
        self._client = Client(
            base_url,
            model,
            api_key_env or "OPENAI_API_KEY",
            concurrency,
            max_retries,
            timeout,
            spending,
        )
        self._address = served_as or str(self._client.address)
        self._batches = Batches(self._client, self._kept, batch_poll) if batch else None
        self._loop = LoopThread()
        self.usage = Usage()
        self._closed = False

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What decides this engine's output; asks the server once how labels can be read."""
        source, constraint = self._label_source
        return {
            "engine": "openai",
            "model": self.name,
            "revision": self._revision,
            "server": self._address,
            "labels": str(source),
            "constraint": constraint,
            "prompt": self._prompts.kind,
            "tokenizer": self._prompts.fingerprint(),
            "template_arguments": canonical(self._arguments),
            "extra_body": canonical(self._extra),
        }

    @property
    def spent(self) -> float:
        """The money spent so far in this run on this model, in the currency of its prices."""
        return float(self._client.spending.spent)

    def before_paying(self, ask: Callable[[float], None]) -> None:
        """Tell `ask` before each request what may be spent next; what it raises is raised."""
        self._client.spending.before = ask

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """Sample responses; a server that heeds seeds is given one for each.

        An answer's surrounding whitespace is stripped; the continuation of an assistant message
        is left as it is.

        Raises:
            EngineError: what concerns all rows: the server is down, refuses the key or everybody,
                does not serve the model, or the cap on spending is reached.
            RlaifError: what is raised by whom it asks before paying.
        """
        if len(seeds) != len(chats):
            raise ValueError(f"{len(chats)} chats but {len(seeds)} seeds")
        if not chats:
            return []
        server, requests = self._server, self._requests
        prompts, out = self._prepare(chats, sampling.max_tokens)
        alike = sampling.temperature == 0  # n greedy answers are one
        n = 1 if alike else sampling.n
        settings = sampling_settings(sampling, n, server)
        asked = {
            i: requests.several(prompt, settings, n, None if alike else seeds[i], server.many)
            for i, prompt in prompts.items()
        }
        answers = self._answers(asked, prompts, requests.canary(settings))
        made = {i: Generation((), reason) for i, reason in out.items()}
        for i, rows in answers.items():
            going_on = chats[i][-1].role == "assistant"
            made[i] = generation(rows, n, sampling.stop, going_on)
            if alike:
                made[i] = replace(made[i], responses=made[i].responses * sampling.n)
        return [made[i] for i in range(len(chats))]

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """The probability of each label as the next token, in the way that `identity` tells.

        Raises:
            EngineError: as `generate`, or labels that share a form, or with a tokenizer a label
                whose first form is not a single token.
        """
        if not chats:
            return []
        question = Question.about(
            labels, self._prompts.tokenizer, self.name, self._label_source, self._server
        )
        prompts, out = self._prepare(chats, question.new_tokens)
        asked = {i: question.ask(prompt, self._requests) for i, prompt in prompts.items()}
        canary = self._requests.canary(question.settings)
        answers = self._answers(asked, prompts, canary)
        made = {i: LabelScore(None, reason) for i, reason in out.items()}
        made |= {i: question.read(rows) for i, rows in answers.items()}
        return [made[i] for i in range(len(chats))]

    def close(self) -> None:
        """Close all connections, and write down what was spent."""
        if not self._closed:
            self._closed = True
            self._loop.run(self._client.close())
            self._loop.close()
            self._client.spending.flush()

    def _prompt_form(self, tokenizer: str | None, continues: bool | None) -> Prompts:
        if tokenizer is not None:
            revision = self._revision if tokenizer == self.name else ""
            return TokenPrompts(tokenizer, revision or None, self._arguments)
        if self._arguments:
            raise EngineError(
                "is for a tokenizer", key="template_arguments",
                mend="give `tokenizer`, or extra_body: {chat_template_kwargs: …} to a server that "
                "takes it",
            )  # fmt: skip
        if self._labels is not None and self._labels.name == "logprob_token_ids":
            raise EngineError(
                "needs a tokenizer", key="labels", value=str(self._labels), mend="give `tokenizer`"
            )
        return MessagePrompts(continues)

    def _prepare(
        self, chats: Sequence[Chat], new_tokens: int
    ) -> tuple[dict[int, Prompt], dict[int, str]]:
        server = self._server
        return self._prompts.prepare(chats, self.usage, server.context, new_tokens, server.kind)

    def _answers(
        self,
        asked: Mapping[int, Sequence[Request]],
        prompts: Mapping[int, Prompt],
        canary: Request,
    ) -> dict[int, list[Answer]]:
        """The answers to each chat's requests."""
        order: list[int] = sorted(asked, key=lambda i: prompts[i].order)
        places = [(i, k) for i in order for k in range(len(asked[i]))]
        requests = [asked[i][k] for i, k in places]
        found: dict[tuple[int, int], Answer] = {}

        def keep(place: int, answer: Answer) -> None:
            found[places[place]] = answer
            count(self.usage, answer)

        async def ask() -> None:
            if self._batches is None:
                await self._client.ask(requests, canary, keep)
            elif requests:
                for place, answer in enumerate(await self._batches.ask(requests)):
                    keep(place, answer)

        try:
            self._run(ask)
        finally:
            self._client.spending.flush()
        return {i: [found[i, k] for k in range(len(asked[i]))] for i in asked}

    @cached_property
    def _server(self) -> Server:
        server = self._run(lambda: probe.find_kind(self._client))
        return probe.find_abilities(server, self._try)

    @cached_property
    def _label_source(self) -> tuple[LabelSource, str]:
        """Chosen, or kept from the run's beginning, or found out now."""
        chosen = self._labels
        if chosen is not None and chosen.name != "frequency":
            return chosen, ""
        name = f"labels-{fingerprint([self._address, self.name, str(chosen), self._prompts.kind])}"
        kept = self._kept.read(name)
        if kept is not None:
            return LabelSource.read(kept["labels"]), str(kept["constraint"])
        if chosen is not None:
            source, constraint = chosen, probe.find_constraint(self._try, self._server)
        else:
            source, constraint = probe.find_labels(self._try, self._server, self._some_ids)
        self._kept.write(name, {"labels": str(source), "constraint": constraint})
        return source, constraint

    @cached_property
    def _some_ids(self) -> list[int] | None:
        if self._prompts.tokenizer is None:
            return None
        return sorted(set(self._requests.canary_prompt().body["prompt"]))[:4]

    def _try(self, settings: Mapping[str, Any]) -> Answer:
        return self._run(lambda: self._client.one(self._requests.canary(settings)))

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._closed:
            raise EngineError(f"the engine of {self.name} was closed", mend="load it again")

        async def run() -> T:
            return await work()

        return self._loop.run(run())


def _check(concurrency: int, max_retries: int, timeout: float, batch_poll: float) -> None:
    for key, value, least in (
        ("concurrency", concurrency, 1),
        ("max_retries", max_retries, 0),
        ("timeout", timeout, 0.001),
        ("batch_poll", batch_poll, 0.001),
    ):
        valid = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= least
        if not valid or (least in (0, 1) and not isinstance(value, int)):
            raise EngineError(f"must be {least} or more", key=key, value=value)
