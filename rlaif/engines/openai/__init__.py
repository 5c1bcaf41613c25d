"""The engine for any server that speaks OpenAI's API: vLLM, SGLang, llama.cpp, a hosted one."""

from rlaif.engines.openai.engine import OpenAIEngine

__all__ = ["OpenAIEngine"]
