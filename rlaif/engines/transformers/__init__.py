"""The engine that is always there: Hugging Face transformers, in this process, on CPU or GPU."""

from rlaif.engines.transformers.engine import TransformersEngine

__all__ = ["TransformersEngine"]
