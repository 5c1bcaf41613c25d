"""A model that is known and not loaded: its identity tells which of its answers are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlaif.engines.protocol import Generation, Label, LabelScore, Sampling, Usage
from rlaif.errors import EngineError
from rlaif.records import Chat


@dataclass(frozen=True, slots=True)
class AbsentEngine:
    """An engine that has an identity and answers nothing.

    Attributes:
        identity: of the model whose answers are stored.
    """

    identity: Mapping[str, str]
    usage: Usage = field(default_factory=Usage)

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """Raises EngineError."""
        raise self._error()

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """Raises EngineError."""
        raise self._error()

    def close(self) -> None:
        """Nothing is held."""

    def _error(self) -> EngineError:
        return EngineError(
            "its answers are not all stored, and it is not loaded here",
            key="model", value=self.identity.get("model"), mend="run rlaif label again",
        )  # fmt: skip
