"""What every engine with a tokenizer does before and after its model runs.

chats → prompts that can be served, and reasons → the model → responses and label scores
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlaif.engines.prefix import trie_floor
from rlaif.engines.protocol import LabelScore, Usage
from rlaif.errors import EngineError
from rlaif.records import Chat, Response

if TYPE_CHECKING:
    from rlaif.engines.chat import ChatEncoder

NOT_FINITE = "the model's logits are not finite"
TOO_LARGE = "the prompt does not fit into the device's memory"


def prepare(
    encoder: ChatEncoder,
    chats: Sequence[Chat],
    usage: Usage,
    *,
    holds: int | None,
    new_tokens: int,
    last_needs_room: bool = False,
) -> tuple[dict[int, list[int]], dict[int, str]]:
    """The token ids of the chats that can be served; the reasons of those that cannot.

    Args:
        encoder: of the model's tokenizer.
        chats: one a row.
        usage: the requests and the floor are counted there.
        holds: the most tokens a model computes in one sequence; None if nobody knows.
        new_tokens: how long the answer may become.
        last_needs_room: whether the last new token, which is read and not computed on, counts.
    """
    prompts: dict[int, list[int]] = {}
    reasons: dict[int, str] = {}
    for i, ids in enumerate(encoder.encode(chats)):
        if isinstance(ids, EngineError):
            reasons[i] = str(ids)
        elif holds and len(ids) + new_tokens - (not last_needs_room) > holds:
            more = f" and the answer {new_tokens}" if new_tokens > 1 else ""
            reasons[i] = f"the prompt has {len(ids)} tokens{more}, the context holds {holds}"
        else:
            prompts[i] = ids
    usage.requests += len(chats)
    usage.floor_tokens += trie_floor(list(prompts.values()))
    return prompts, reasons


def response(
    text: str, tokens: Sequence[int], ends: Collection[int], stop: Sequence[str], going_on: bool
) -> Response:
    """A response without its stop string, and without the whitespace around an answer.

    Args:
        text: what the tokens say, without special tokens.
        tokens: with the end token, or those of the stop string.
        ends: the ids that end a response.
        stop: the stop strings.
        going_on: the chat ended with an assistant message: its continuation is left as it is.
    """
    cut = min((at for s in stop if (at := text.find(s)) >= 0), default=None)
    ended = cut is not None or (bool(tokens) and tokens[-1] in ends)
    text = text[:cut]
    return Response(text if going_on else text.strip(), len(tokens), "stop" if ended else "length")


def label_score(row: Sequence[float] | None) -> LabelScore:
    """A row of log-probabilities; None is a prompt that did not fit into memory."""
    if row is None:
        return LabelScore(None, TOO_LARGE)
    if not all(map(math.isfinite, row)):
        return LabelScore(None, NOT_FINITE)
    return LabelScore(tuple(row))


def end_ids(tokenizer: Any, config: Any, generation_config: Any) -> frozenset[int]:
    """The ids that end a response: the model's own and the tokenizer's."""
    found = [tokenizer.eos_token_id, config.eos_token_id]
    found.append(getattr(generation_config, "eos_token_id", None))
    flat = [x for item in found for x in (item if isinstance(item, list) else [item])]
    return frozenset(x for x in flat if x is not None)


def canonical(arguments: Mapping[str, Any]) -> str:
    """Arguments as text, independent of their order; "" for none."""
    return json.dumps(arguments, sort_keys=True, default=str) if arguments else ""
