"""From a recipe's model section to an engine: the one place that knows them all by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif.engines.protocol import Engine
from rlaif.errors import EngineError

if TYPE_CHECKING:
    from rlaif.recipe import Model


def load_engine(model: Model) -> Engine:
    """The engine for the model that a recipe's `student` or `teacher` section names.

    Raises:
        EngineError: no such engine or model, or arguments that the engine does not know.
        MissingExtraError: the engine is an extra that is not installed.
    """
    if model.engine == "transformers":
        from rlaif.engines.transformers import TransformersEngine

        return TransformersEngine(
            str(model.model),
            revision=model.revision,
            dtype=model.dtype,
            trust_remote_code=model.trust_remote_code,
            adapter=None if model.adapter is None else str(model.adapter),
            **model.engine_args,
        )
    raise EngineError("no such engine", key="engine", value=model.engine, mend="use transformers")
