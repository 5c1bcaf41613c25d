"""From a recipe's model section to an engine: the one place that knows them all by name."""

from __future__ import annotations

import os
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.engines.meter import metered
from rlaif.engines.protocol import Engine
from rlaif.errors import EngineError

if TYPE_CHECKING:
    from rlaif.recipe import Model


def load_engine(model: Model, state: Path | None = None) -> Engine:
    """The engine for the model that a recipe's `student` or `teacher` section names.

    Args:
        model: the section.
        state: a folder for what an engine keeps beyond its process, such as the money it spent;
            without one that is gone with the process.

    Raises:
        EngineError: no such engine or model, or arguments that the engine does not know.
        MissingExtraError: the engine is an extra that is not installed.
    """
    return metered(_load(model, state))


def _load(model: Model, state: Path | None) -> Engine:
    if model.engine == "transformers":
        from rlaif.engines.transformers import TransformersEngine

        return TransformersEngine(
            str(model.model),
            revision=model.revision,
            dtype=model.dtype,
            trust_remote_code=model.trust_remote_code,
            adapter=None if model.adapter is None else str(model.adapter),
            state=state,
            **model.engine_args,
        )
    if model.engine == "openai":
        return _openai(model, state)
    if model.engine == "vllm":
        return _vllm(model)
    raise EngineError(
        "no such engine",
        key="engine",
        value=model.engine,
        mend="use transformers, vllm or openai",
    )


def _vllm(model: Model) -> Engine:
    from rlaif.engines.process import ProcessEngine

    given = dict(model.engine_args)
    python = given.pop("python", None) or os.environ.get("RLAIF_VLLM_PYTHON")
    arguments = {
        "model": str(model.model),
        "revision": model.revision,
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "adapter": None if model.adapter is None else str(model.adapter),
    }
    if twice := arguments.keys() & given.keys():
        key = min(twice)
        raise EngineError("is no engine argument", key=f"engine_args.{key}", mend=f"set `{key}`")
    return ProcessEngine("rlaif.engines.vllm:VllmEngine", arguments | given, python)


def _openai(model: Model, state: Path | None) -> Engine:
    from rlaif.engines.openai import OpenAIEngine

    for key, plain in (("dtype", "auto"), ("adapter", None), ("trust_remote_code", False)):
        if (value := getattr(model, key)) != plain:
            raise EngineError(
                "is the server's to choose", key=key, value=value,
                mend="remove it, and start the server with it",
            )  # fmt: skip
    known = set(signature(OpenAIEngine).parameters) - {"model", "revision", "state"}
    if unknown := model.engine_args.keys() - known:
        raise EngineError(
            "no such argument of this engine", key=f"engine_args.{min(unknown)}",
            mend=f"use {', '.join(sorted(known))}",
        )  # fmt: skip
    return OpenAIEngine(str(model.model), revision=model.revision, state=state, **model.engine_args)
