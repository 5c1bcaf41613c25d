"""What a server can do, found out by asking it: a few requests of one token each.

How labels are read is settled once, before the first shard, and kept, since it decides what the
labels are: a run that is continued reads them in the same way, whatever the server can do by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlaif.engines.openai.answers import in_order
from rlaif.engines.openai.client import Client
from rlaif.engines.openai.failures import Answer, Refusal
from rlaif.engines.openai.labels import LabelSource, entries, said
from rlaif.errors import EngineError
from rlaif.records import Message

Ask = Callable[[Mapping[str, Any]], Answer]
"""Asks the canary's question with these settings."""

CANARY = (Message("user", "Say yes or no."),)
_COUNTS = (20, 10, 5, 2)
_WORDS = ("walnut", "zebra")
CONSTRAINTS = ("choice", "json_schema")


@dataclass(frozen=True, slots=True)
class Server:
    """What a server is.

    Attributes:
        kind: what it calls itself: "vllm", "sglang", …; "" if it does not say.
        context: the most tokens of prompt and answer together; None if it does not say.
        limit: the name that it has for the most tokens of an answer.
        many: it gives several answers to one request.
    """

    kind: str = ""
    context: int | None = None
    limit: str = "max_tokens"
    many: bool = True


async def find_kind(client: Client) -> Server:
    """What the server says it is; raises as `Client.models`."""
    listed = await client.models()
    mine = [m for m in listed if m.get("id") == client.model] or listed[:1]
    told = mine[0] if mine else {}
    context = told.get("max_model_len")
    return Server(str(told.get("owned_by") or ""), context if isinstance(context, int) else None)


def find_abilities(server: Server, ask: Ask) -> Server:
    """How the server takes a limit, and whether it gives two answers at once.

    Raises:
        EngineError: it refuses even the plainest request.
    """
    refusal = None
    for limit in ("max_tokens", "max_completion_tokens"):
        for n in (2, 1):
            answer = ask({limit: 1, "n": n, "temperature": 1.0})
            if not isinstance(answer, Refusal):
                many = len(in_order(answer)) > 1
                return Server(server.kind, server.context, limit, many)
            refusal = refusal or answer
    raise EngineError(
        f"the server refuses the plainest of requests: {refusal.reason if refusal else ''}",
        mend="mend what it says",
    )


def find_labels(ask: Ask, server: Server, token_ids: list[int] | None) -> tuple[LabelSource, str]:
    """The first way to read labels that the server has, and the constraint that it needs.

    Args:
        ask: asks the canary's question.
        server: what is known of it.
        token_ids: a few ids of the tokenizer's; None where chats are sent as messages.

    Raises:
        EngineError: it has none.
    """
    if token_ids is not None:
        answer = ask({server.limit: 1, "temperature": 0.0, **logprob_token_ids(token_ids)})
        found = [] if isinstance(answer, Refusal) else entries(answer["choices"][0])
        if not isinstance(found, str) and {e.id for e in found} >= set(token_ids):
            return LabelSource("logprob_token_ids"), ""
    for count in _COUNTS:
        answer = ask({server.limit: 1, **top_logprobs(count, server, token_ids is not None)})
        if isinstance(answer, Refusal):
            continue
        found = entries(answer["choices"][0])
        if not isinstance(found, str) and len(found) >= 2:
            return LabelSource("top_logprobs", count), ""
    return LabelSource.read("frequency"), find_constraint(ask, server)


def find_constraint(ask: Ask, server: Server) -> str:
    """How the server is made to answer one of some words; raises as `find_labels`."""
    for constraint in CONSTRAINTS:
        answer = ask({server.limit: 32, "temperature": 1.0, **constrained(constraint, _WORDS)})
        if not isinstance(answer, Refusal) and said(text_of(answer["choices"][0])) in _WORDS:
            return constraint
    raise EngineError(
        "the server gives no log-probabilities and keeps to no choice of words, so that it cannot "
        "label",
        mend="name a server or a model that does (vLLM, SGLang, llama.cpp, Ollama, …)",
    )


def logprob_token_ids(ids: list[int]) -> dict[str, Any]:
    """Settings that ask for the log-probabilities of these tokens."""
    return {"logprobs": 1, "logprob_token_ids": ids, "return_tokens_as_token_ids": True}


def top_logprobs(count: int, server: Server, completion: bool) -> dict[str, Any]:
    """Settings that ask for the likeliest tokens.

    Where vLLM samples a token that is not among them, it returns one of them less: it is made to
    take the likeliest, which leaves its log-probabilities as they are. With others, whose
    log-probabilities may be those after the temperature, that is 1.
    """
    vllm = server.kind == "vllm"
    settings: dict[str, Any] = {"temperature": 0.0 if vllm else 1.0}
    if not completion:
        return settings | {"logprobs": True, "top_logprobs": count}
    told_by_id = {"return_tokens_as_token_ids": True} if vllm else {}
    return settings | {"logprobs": count} | told_by_id


def constrained(constraint: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Settings under which an answer is one of these words."""
    if constraint == "choice":
        return {"structured_outputs": {"choice": list(words)}}
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(words)}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    named = {"name": "label", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def text_of(choice: Mapping[str, Any]) -> str:
    """A choice's text; "" where it has none."""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    return text if isinstance(text, str) else ""
