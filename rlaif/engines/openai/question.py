"""A question whose answer is one of some label words: how it is asked, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.engines.answers import canonical
from rlaif.engines.label_tokens import label_token_ids
from rlaif.engines.openai import labels as reading
from rlaif.engines.openai import probe
from rlaif.engines.openai.answers import in_order
from rlaif.engines.openai.failures import Answer, Refusal
from rlaif.engines.openai.http import Request
from rlaif.engines.openai.labels import LabelSource
from rlaif.engines.openai.probe import Server
from rlaif.engines.openai.prompts import Prompt
from rlaif.engines.openai.requests import NEUTRAL, Requests
from rlaif.engines.protocol import Label, LabelScore
from rlaif.records import seed_of

_WORD_TOKENS = 32  # for a word, or the JSON around it


@dataclass(frozen=True, slots=True)
class Question:
    """Asks for labels in one way.

    Attributes:
        labels: their surface forms.
        ids: of each label, its tokens; None where chats are sent as messages.
        source: the way.
        constraint: how the server is made to answer in label words, where that is the way.
        server: what is known of it.
    """

    labels: Sequence[Label]
    ids: list[list[int]] | None
    source: LabelSource
    constraint: str
    server: Server

    @classmethod
    def about(
        cls,
        labels: Sequence[Label],
        tokenizer: Any,
        name: str,
        way: tuple[LabelSource, str],
        server: Server,
    ) -> Question:
        """The question with these labels.

        Raises:
            EngineError: labels that share a form, or with a tokenizer one whose first form is not
                a single token.
        """
        if tokenizer is None:
            reading.refuse_shared_forms(labels)
            return cls(labels, None, *way, server)
        return cls(labels, label_token_ids(tokenizer, labels, name), *way, server)

    @property
    def settings(self) -> dict[str, Any]:
        """Of a request."""
        return {**self._way, **(NEUTRAL if self.server.kind == "vllm" else {})}

    @property
    def new_tokens(self) -> int:
        """An answer has at most so many."""
        return _WORD_TOKENS if self.source.name == "frequency" else 1

    def ask(self, prompt: Prompt, requests: Requests) -> list[Request]:
        """The requests for one prompt."""
        if self.source.name != "frequency":
            return [requests.one(prompt, self.settings)]
        seed = seed_of("labels", canonical(prompt.body))
        return requests.several(prompt, self.settings, self.source.count, seed, self.server.many)

    def read(self, answers: Sequence[Answer]) -> LabelScore:
        """The score in the answers to one prompt."""
        choices = []
        for answer in answers:
            if isinstance(answer, Refusal):
                return LabelScore(None, answer.reason)
            choices += in_order(answer)
        if self.source.name == "logprob_token_ids":
            return reading.exact(choices[0], self.ids or [])
        if self.source.name == "top_logprobs":
            return reading.top(choices[0], self.labels, self.ids)
        return reading.frequency(list(map(probe.text_of, choices)), self._words)

    @property
    def _words(self) -> tuple[str, ...]:
        return tuple(label[0] for label in self.labels)

    @property
    def _way(self) -> dict[str, Any]:
        limit = {self.server.limit: self.new_tokens}
        if self.source.name == "logprob_token_ids":
            every = [i for label in self.ids or [] for i in label]
            return limit | {"temperature": 0.0} | probe.logprob_token_ids(every)
        if self.source.name == "top_logprobs":
            completion = self.ids is not None
            return limit | probe.top_logprobs(self.source.count, self.server, completion)
        words = probe.constrained(self.constraint, self._words)
        return limit | {"temperature": 1.0} | words
