"""Questions, and judges that answer them by the texts they are shown."""

from __future__ import annotations

from rlaif.engines.protocol import LabelScore
from rlaif.filters.ways import Question
from rlaif.records import Chat, Message, sigmoid


def question(
    response: str = "true",
    other: str | None = None,
    *,
    prompt: str = "What is a tide?",
    principle: str = "Be right.",
) -> Question:
    return Question((Message("user", prompt),), response, principle, other)


def masses(log_odds: float) -> tuple[float, float]:
    """The masses of two label words that amount to these log-odds."""
    return sigmoid(log_odds), sigmoid(-log_odds)


def says(log_odds: float | None) -> LabelScore | tuple[float, float]:
    """What a judge says that has these log-odds, or that abstains."""
    return LabelScore(None, "busy") if log_odds is None else masses(log_odds)


def is_reading(chat: Chat) -> bool:
    """Whether this is the question about a debate."""
    return chat[0].text.startswith("Judge a debate")
