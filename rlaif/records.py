"""The one thing that flows: a prompt, its responses, and what the judge said of them.

    prompts → sample → judge → pick → filter → train → evaluate

Stages are plain functions from records to records. An SFT pick, a preference pair and a
reward-model row are views of a record, written at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message.

    `content` may be a tuple of segments. An engine tokenizes each segment by itself and never
    reads a special token in it: what a segment says cannot leave its place.
    """

    role: str
    content: str | tuple[str, ...]

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(self.content)


Chat = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled completion: its text, its length in tokens, and why it ended."""

    text: str
    tokens: int
    finish: Finish


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge said of one response, or of a pair of them, under one principle.

    Attributes:
        principle: the principle's fingerprint, which names what the judge read.
        response: index of the judged response in its record.
        other: pairwise mode: index of the response it was compared with; else None.
        log_odds: of keeping the principle (pairwise: of being better than `other`, the mean of
            both orders), in nats; None is an abstention.
        coverage: probability mass, 0 to 1, that the label tokens had at all (the least of the
            orders).
        order_gap: pairwise mode: log-odds in the first order minus log-odds in the second; 0
            for a judge without position bias.
        reason: why the judge abstained; None where it did not.
        rationale: the reasoning written before the verdict, where the recipe asks for it.
    """

    principle: str
    response: int
    other: int | None
    log_odds: float | None
    coverage: float
    order_gap: float | None = None
    reason: str | None = None
    rationale: str | None = None

    def __post_init__(self) -> None:
        if (self.log_odds is None) == (self.reason is None):
            raise ValueError("a verdict has log-odds, or a reason for having none")
        if self.log_odds is not None and not math.isfinite(self.log_odds):
            raise ValueError(f"log-odds must be finite, not {self.log_odds}")

    @property
    def probability(self) -> float | None:
        """The log-odds as a probability, 0 to 1; None where the judge abstained."""
        return None if self.log_odds is None else sigmoid(self.log_odds)


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt with everything that has been made of it so far."""

    id: str
    prompt: Chat
    responses: tuple[Response, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Record:
        """A copy with these fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that is kept aside, with the stage and the reason."""

    id: str
    stage: str
    reason: str
    detail: str = ""


def record_id(prompt: Chat) -> str:
    """The first 16 hex digits of the prompt's SHA-256: equal prompts have equal ids."""
    return fingerprint([[m.role, m.text] for m in prompt])


def fingerprint(value: object) -> str:
    """16 hex digits of the SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def seed_of(*parts: object) -> int:
    """A 63-bit seed that follows from its parts alone (the run's seed, a record's id, …)."""
    text = json.dumps([str(p) for p in parts], ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def chat_to_json(chat: Chat) -> list[dict[str, str]]:
    """A chat in the form that `datasets`, TRL and chat templates take."""
    return [{"role": m.role, "content": m.text} for m in chat]


def chat_from_json(rows: Sequence[Mapping[str, str]]) -> Chat:
    """The reverse of `chat_to_json`."""
    return tuple(Message(row["role"], row["content"]) for row in rows)
