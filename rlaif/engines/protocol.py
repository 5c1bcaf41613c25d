"""The whole contract of an engine: chats in; text, or the probabilities of label words, out.

A stage knows nothing else of a model. Rules every engine keeps:

- Special tokens come from the chat template alone, never from what a message says. Each segment
  of a message's content is tokenized by itself.
- A chat that ends with an assistant message is continued, not answered.
- One row that cannot be served (too long, NaN logits) is returned with a reason; it never raises
  and never gets a default.
- The same chats in the same order with the same seeds give the same output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from rlaif.records import Chat, Response

Label = tuple[str, ...]
"""The surface forms of one label word. The first must be a single token of the model's tokenizer;
the others, and each with a space before it, count where they are single tokens."""

YES: Label = ("yes", "Yes", "YES")
NO: Label = ("no", "No", "NO")
LETTERS: tuple[Label, Label] = (("A",), ("B",))
RATINGS: tuple[Label, ...] = (("1",), ("2",), ("3",), ("4",), ("5",))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. `temperature` 0 is greedy; `stop` strings are not part of the text."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON, for what depends on it."""
        return asdict(self) | {"stop": list(self.stop)}


@dataclass(frozen=True, slots=True)
class Generation:
    """The `n` responses to one chat, or none of them and the reason."""

    responses: tuple[Response, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Log-probability of each label over the whole vocabulary, or None and the reason.

    `seen` is the labels' mass where not all of it is theirs for certain: an engine that could only
    bound a label from above counts that bound in `logprobs`, and not here.
    """

    logprobs: tuple[float, ...] | None
    reason: str | None = None
    seen: float | None = None

    @property
    def coverage(self) -> float:
        """The probability mass, 0 to 1, that the labels have together."""
        if self.logprobs is None:
            return 0.0
        mass = sum(math.exp(x) for x in self.logprobs) if self.seen is None else self.seen
        return min(1.0, mass)


@dataclass(slots=True)
class Usage:
    """What an engine has done since it was made, in tokens.

    `computed_tokens` were run through the model; `floor_tokens` is the least that could have been
    (the trie of all prompts, each shared prefix once). `halvings` counts how often batches were
    made smaller because memory had run out: in bfloat16, other batches are other bytes.
    """

    requests: int = 0
    computed_tokens: int = 0
    floor_tokens: int = 0
    generated_tokens: int = 0
    halvings: int = 0


@runtime_checkable
class Engine(Protocol):
    """Text in → text, or label probabilities, out."""

    @property
    def usage(self) -> Usage:
        """What it has done so far."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides this engine's output (engine, model, revision, dtype, …); fingerprinted."""
        ...

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """`sampling.n` responses a chat, in order; one seed a chat."""
        ...

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """The probability of each label as the next token, a row a chat, in order.

        Raises:
            EngineError: a label whose first form is not a single token.
        """
        ...

    def close(self) -> None:
        """Give back the memory. The engine cannot be used afterwards."""
        ...
