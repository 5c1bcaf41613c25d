"""Requests out of prompts and settings, in the form that one server takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlaif.engines.openai.http import Request
from rlaif.engines.openai.probe import CANARY, Server
from rlaif.engines.openai.prompts import Prompt, Prompts
from rlaif.engines.protocol import Sampling, Usage
from rlaif.errors import EngineError
from rlaif.records import seed_of

_SEEDS = 1 << 31  # some servers hold a seed in 32 bits with a sign
NEUTRAL: Mapping[str, Any] = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""What vLLM else takes from the model's own folder."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Makes requests.

    Attributes:
        model: the name that the server serves.
        prompts: the form of its prompts.
        extra: put into every request, over all else; null leaves a setting out.
    """

    model: str
    prompts: Prompts
    extra: Mapping[str, Any]

    def one(self, prompt: Prompt, settings: Mapping[str, Any]) -> Request:
        """A request with these settings."""
        whole = {"model": self.model, **prompt.body, **settings, **self.extra}
        body = {key: value for key, value in whole.items() if value is not None}
        limits = (body.get("max_tokens"), body.get("max_completion_tokens"))
        most = max((x for x in limits if isinstance(x, int)), default=0)
        answers = body.get("n") or 1
        return Request(prompt.path, body, prompt.most_tokens(body), most * int(answers))

    def several(
        self, prompt: Prompt, settings: Mapping[str, Any], n: int, seed: int | None, many: bool
    ) -> list[Request]:
        """One request for `n` answers, or one for each where the server gives one at a time."""
        if many or n == 1:
            whole = {"n": n} if n > 1 else {}
            return [self.one(prompt, {**settings, **whole, **_seed(seed, 0)})]
        return [self.one(prompt, {**settings, **_seed(seed, k)}) for k in range(n)]

    def canary(self, settings: Mapping[str, Any]) -> Request:
        """A harmless request with these settings."""
        return self.one(self.canary_prompt(), settings)

    def canary_prompt(self) -> Prompt:
        """The prompt of a harmless request."""
        prompts, reasons = self.prompts.prepare([CANARY], Usage(), None, 1, "")
        if reasons:
            raise EngineError(reasons[0])
        return prompts[0]


def sampling_settings(sampling: Sampling, n: int, server: Server) -> dict[str, Any]:
    """The settings of a request for `n` samples, without a seed."""
    settings: dict[str, Any] = {
        server.limit: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.stop:
        settings["stop"] = list(sampling.stop)
    if server.kind == "vllm":
        counted = {"return_token_ids": True} if n > 1 else {}
        settings |= {**NEUTRAL, **counted}
    return settings


def sent_seed(seed: int, response: int = 0) -> int:
    """The seed that a server is sent for a response to a chat.

    A server counts up from it where it gives several answers: seeds that lie side by side here
    must not there, or two chats would share responses.
    """
    return seed_of(seed, response) % _SEEDS


def _seed(seed: int | None, response: int) -> dict[str, int]:
    return {} if seed is None else {"seed": sent_seed(seed, response)}
