"""A model that is loaded at its first question, and gives its memory back when a stage ends.

A stage whose output is all there asks nothing, so nothing is loaded. What decides the output is
known before: the identity comes from the model's files alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rlaif.engines.load import engine_identity, load_engine
from rlaif.engines.protocol import Engine
from rlaif.recipe import Model


class LazyEngine:
    """An engine for a recipe's `student` or `teacher`; a context manager.

    Args:
        model: the section of the recipe.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._engine: Engine | None = None
        self._identity: Mapping[str, str] | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides the engine's output, without loading its weights.

        Raises:
            EngineError: there is no such model.
        """
        if self._identity is None:
            self._identity = engine_identity(self._model)
        return self._identity

    @property
    def engine(self) -> Engine:
        """The engine, loaded now if it was not yet.

        Raises:
            EngineError: the model cannot be loaded.
            MissingExtraError: its engine is an extra that is not installed.
        """
        if self._engine is None:
            self._engine = load_engine(self._model)
        return self._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
