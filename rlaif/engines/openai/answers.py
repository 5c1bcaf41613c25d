"""From a server's answers to responses: in the order of their indices, each of them once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.engines.openai.failures import Answer, Refusal
from rlaif.engines.openai.http import tokens_used
from rlaif.engines.protocol import Generation, Usage
from rlaif.records import Response

_BYTES_A_TOKEN = 4  # for servers that tell no counts


def generation(
    answers: Sequence[Answer], n: int, stop: Sequence[str], going_on: bool
) -> Generation:
    """The `n` responses to one chat, or the reason for having none.

    A response's tokens are those that the server counts. Where it counts those of several
    responses together, they are shared out by the lengths of the texts.

    Args:
        answers: to its requests.
        n: how many responses were asked for.
        stop: the stop strings.
        going_on: the chat ended with an assistant message: its continuation is left as it is.
    """
    responses: list[Response] = []
    for answer in answers:
        if isinstance(answer, Refusal):
            return Generation((), answer.reason)
        choices = in_order(answer)
        texts = [_text(choice) for choice in choices]
        for choice, text, tokens in zip(choices, texts, _tokens(answer, choices), strict=True):
            read = _response(choice, text, tokens, stop, going_on)
            if isinstance(read, str):
                return Generation((), read)
            responses.append(read)
    if len(responses) < n:
        return Generation((), f"the server gave {len(responses)} of {n} answers")
    return Generation(tuple(responses[:n]))


def in_order(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """An answer's choices by their index; of two with the same index, the first."""
    by_index: dict[int, Mapping[str, Any]] = {}
    for place, choice in enumerate(answer["choices"]):
        index = choice.get("index")
        by_index.setdefault(index if type(index) is int else place, choice)
    return [by_index[i] for i in sorted(by_index)]


def count(usage: Usage, answer: Answer) -> None:
    """Add the tokens that an answer took."""
    used = None if isinstance(answer, Refusal) else tokens_used(answer)
    if used is not None:
        prompt, cached, output = used
        usage.computed_tokens += prompt - cached
        usage.generated_tokens += output


def _response(
    choice: Mapping[str, Any], text: str | None, tokens: int, stop: Sequence[str], going_on: bool
) -> Response | str:
    finish = choice.get("finish_reason")
    if text is None:
        return "the server gave an answer without text"
    if finish not in ("stop", "length"):
        return f"the server ended an answer with {finish}"
    # Some servers leave the stop string in, or know none.
    cut = min((at for s in stop if (at := text.find(s)) >= 0), default=None)
    if cut is not None:
        text = text[:cut]
    ended = finish == "stop" or cut is not None
    return Response(text if going_on else text.strip(), tokens, "stop" if ended else "length")


def _text(choice: Mapping[str, Any]) -> str | None:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    return text if isinstance(text, str) else None


def _tokens(answer: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> list[int]:
    ids = [choice.get("token_ids") for choice in choices]
    if all(isinstance(row, list) for row in ids):
        return [len(row) for row in ids]  # type: ignore[arg-type]
    lengths = [len((_text(choice) or "").encode(errors="replace")) for choice in choices]
    used = tokens_used(answer)
    if used is None:
        return [-(-length // _BYTES_A_TOKEN) for length in lengths]
    return _share_out(used[2], lengths)


def _share_out(total: int, weights: Sequence[int]) -> list[int]:
    """Whole shares that add up to the total."""
    whole = sum(weights) or len(weights)
    parts = [w if sum(weights) else 1 for w in weights]
    ends = [total * sum(parts[: i + 1]) // whole for i in range(len(parts))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
