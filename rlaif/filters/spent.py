"""What a way of asking costs, in calls and tokens: an engine that counts what passes through it.

`Engine.usage` tells what an engine ran, which caches and shared prefixes make less of. Here every
question counts in full, so that two ways compare alike whatever runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlaif.engines.protocol import Engine, Generation, Label, LabelScore, Sampling, Usage
from rlaif.filters.ways import Question, Way
from rlaif.label.ask import Answer
from rlaif.records import Chat

Length = Callable[[Chat], int]
"""A chat's length in tokens."""


def length_in_words(chat: Chat) -> int:
    """A stand-in where no tokenizer is at hand: words, as they are told apart by white space."""
    return sum(len(message.text.split()) for message in chat)


@dataclass(frozen=True, slots=True)
class Spent:
    """What was asked of an engine: calls (a chat each), their tokens, and those it generated.

    Reasons and the verdict behind them are two calls, and the second one reads the reasons too.
    """

    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.generated_tokens

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.generated_tokens + other.generated_tokens,
        )

    def __sub__(self, other: Spent) -> Spent:
        return Spent(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.generated_tokens - other.generated_tokens,
        )


class Metered:
    """An engine that passes everything on and counts it.

    Args:
        engine: what answers.
        length: of a chat, in the tokens that are to be counted.

    Attributes:
        spent: so far. A chat with n responses is one call; each response counts as generated.
    """

    def __init__(self, engine: Engine, length: Length = length_in_words) -> None:
        self.engine, self.length, self.spent = engine, length, Spent()

    @property
    def usage(self) -> Usage:
        """What the engine has done."""
        return self.engine.usage

    @property
    def identity(self) -> Mapping[str, str]:
        """The engine's: counting decides nothing."""
        return self.engine.identity

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """The engine's generations."""
        made = self.engine.generate(chats, sampling, seeds)
        self._count(chats, sum(r.tokens for g in made for r in g.responses))
        return made

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """The engine's scores."""
        found = self.engine.score_labels(chats, labels)
        self._count(chats, 0)
        return found

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _count(self, chats: Sequence[Chat], generated: int) -> None:
        self.spent += Spent(len(chats), sum(map(self.length, chats)), generated)


def answered(
    questions: Sequence[Question], way: Way, engine: Engine, length: Length = length_in_words
) -> tuple[list[Answer], Spent]:
    """The answers to the questions by one way, and what it cost to have them.

    An engine that a way was given of its own (a debate's debaters) is not counted: wrap that too.
    """
    metered = Metered(engine, length)
    return way(questions, metered), metered.spent
