"""What crosses the pipes between an engine's process and ours: JSON, each message with its length.

process.py (ours) ⇄ worker.py (the engine's). Nothing but text and numbers crosses: no pickle, so
neither side can run what the other sends.
"""

from __future__ import annotations

import builtins
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif import errors
from rlaif.engines.protocol import Generation, LabelScore
from rlaif.errors import EngineError, RlaifError
from rlaif.records import Chat, Message, Response

HEADER = struct.Struct(">Q")
"""The length in bytes of the message that follows."""

_PARTS = ("what", "file", "line", "key", "mend")
_PLAIN = (ValueError, TypeError, NotImplementedError)
"""Errors of the caller's code, passed on as they are."""


def frame(message: Any) -> bytes:
    """A message as bytes, its length first.

    Raises:
        TypeError: something in it is not JSON.
    """
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return HEADER.pack(len(body)) + body


def pack_chats(chats: Sequence[Chat]) -> dict[str, Any]:
    """Chats as a table of the different texts in them, and indices into it.

    Judge prompts are made of segments that they share: each crosses once.
    """
    table: dict[str, int] = {}

    def place(text: str) -> int:
        return table.setdefault(text, len(table))

    rows = [
        [
            [place(m.role), place(m.content)]
            if isinstance(m.content, str)
            else [place(m.role), [place(segment) for segment in m.content]]
            for m in chat
        ]
        for chat in chats
    ]
    return {"texts": list(table), "chats": rows}


def unpack_chats(packed: Mapping[str, Any]) -> list[Chat]:
    """The reverse of `pack_chats`."""
    texts = packed["texts"]
    return [
        tuple(
            Message(
                texts[role],
                texts[content]
                if isinstance(content, int)
                else tuple(texts[segment] for segment in content),
            )
            for role, content in chat
        )
        for chat in packed["chats"]
    ]


def pack_generations(generations: Sequence[Generation]) -> list[Any]:
    """Generations as lists: a reason, and text, tokens and finish of each response."""
    return [[g.reason, [[r.text, r.tokens, r.finish] for r in g.responses]] for g in generations]


def unpack_generations(packed: Sequence[Any]) -> list[Generation]:
    """The reverse of `pack_generations`."""
    return [
        Generation(tuple(Response(*response) for response in responses), reason)
        for reason, responses in packed
    ]


def pack_scores(scores: Sequence[LabelScore]) -> list[Any]:
    """Scores as lists: the log-probabilities or None, a reason, and the mass seen."""
    return [[s.logprobs, s.reason, s.seen] for s in scores]


def unpack_scores(packed: Sequence[Any]) -> list[LabelScore]:
    """The reverse of `pack_scores`."""
    return [
        LabelScore(None if logprobs is None else tuple(logprobs), reason, seen)
        for logprobs, reason, seen in packed
    ]


def pack_error(error: BaseException, trace: str) -> dict[str, Any]:
    """An error that the engine raised; what is no error of ours is one of the engine."""
    packed: dict[str, Any] = {"trace": trace}
    if isinstance(error, RlaifError):
        packed |= {part: getattr(error, part) for part in _PARTS}
        packed["file"] = None if error.file is None else str(error.file)
        packed |= {"class": type(error).__name__, "message": str(error)}
        packed["value"] = None if error.value is None else repr(error.value)
    elif isinstance(error, _PLAIN):
        kind = next(kind for kind in _PLAIN if isinstance(error, kind))
        packed |= {"class": kind.__name__, "message": str(error)}
    else:
        first = next(iter(str(error).strip().splitlines()), "")
        told = f"{type(error).__name__}: {first}" if first else type(error).__name__
        packed |= {"class": EngineError.__name__, "message": f"the engine failed: {told}"}
    return packed


def unpack_error(packed: Mapping[str, Any]) -> Exception:
    """The error again, of the same class and with the same message; its cause is the traceback."""
    name, message = packed["class"], packed["message"]
    kind = getattr(errors, name, None) or getattr(builtins, name)
    error: Exception = kind.__new__(kind, message)  # a subclass may want other arguments
    if isinstance(error, RlaifError):
        for part in (*_PARTS, "value"):
            setattr(error, part, packed.get(part))
    error.__cause__ = RuntimeError(f"in the engine's process:\n{packed['trace']}")
    return error
