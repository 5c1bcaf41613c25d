"""An engine that keeps what it has said: one pass of a model, and any number of looks at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif.engines.protocol import Engine, Generation, Label, LabelScore, Sampling, Usage
from rlaif.records import Chat


class Remembered:
    """Asks each question of an engine once, and each prompt with its seed once.

    Args:
        engine: what is asked; it is closed with this one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._scores: dict[tuple[Chat, tuple[Label, ...]], LabelScore] = {}
        self._texts: dict[tuple[Chat, Sampling, int], Generation] = {}

    @property
    def usage(self) -> Usage:
        """What the engine has done."""
        return self._engine.usage

    @property
    def identity(self) -> Mapping[str, str]:
        """The engine's."""
        return self._engine.identity

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """What the engine writes, or wrote."""
        keys = [(chat, sampling, seed) for chat, seed in zip(chats, seeds, strict=True)]
        new = [key for key in dict.fromkeys(keys) if key not in self._texts]
        if new:
            made = self._engine.generate([k[0] for k in new], sampling, [k[2] for k in new])
            self._texts |= dict(zip(new, made, strict=True))
        return [self._texts[key] for key in keys]

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """What the engine says, or said."""
        keys = [(chat, tuple(labels)) for chat in chats]
        new = [key for key in dict.fromkeys(keys) if key not in self._scores]
        if new:
            made = self._engine.score_labels([chat for chat, _ in new], labels)
            self._scores |= dict(zip(new, made, strict=True))
        return [self._scores[key] for key in keys]

    def close(self) -> None:
        """Close the engine and forget."""
        self._engine.close()
        self._scores.clear()
        self._texts.clear()
