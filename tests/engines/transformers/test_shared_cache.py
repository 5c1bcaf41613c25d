from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from rlaif.engines.transformers.attention import attention_in
from rlaif.engines.transformers.shared_cache import SharedDecoder, can_share, group_size
from tests.tiny_models import SMALL, tiny_llama_config, tiny_model

VOCABULARY = 64
WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": tiny_llama_config(**SMALL),
    "mistral with a window": MistralConfig(**SMALL, sliding_window=8),
    "gemma3": Gemma3TextConfig(**SMALL, **WINDOW),
    "gemma2, whose logits are capped": Gemma2Config(**SMALL, **WINDOW, attn_implementation="eager"),
}


def some(rng: random.Random, least: int, most: int) -> list[int]:
    return [rng.randrange(VOCABULARY) for _ in range(rng.randint(least, most))]


def alone(model: PreTrainedModel, rows: list[list[int]]) -> Tensor:
    return torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows])


@pytest.mark.parametrize("n", [1, 4, 6])
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_every_step_of_every_response_is_what_the_model_says_alone(name: str, n: int) -> None:
    model, rng = tiny_model(CONFIGS[name]), random.Random(n)
    prompts = [some(rng, 1, 20) for _ in range(5)]
    prompts.append(prompts[0][:1])  # a prefix of another
    prompts.append(prompts[1])  # and one twice
    said = [[*prompt] for prompt in prompts for _ in range(n)]
    wanted = alone(model, said)
    with attention_in(model):
        decoder = SharedDecoder(model, prompts, n, room=9, tokens=30)
        logits = decoder.prefill().repeat_interleave(n, dim=0)
    assert (logits - wanted).abs().max() < 1e-4
    for step in range(9):
        if step in (3, 6):  # rows leave, and whole prompts with them
            going = torch.tensor([i for i in range(len(said)) if i % 3 or i > 2 * n])
            decoder.keep(going)
            said = [said[i] for i in going.tolist()]
        tokens = torch.tensor([rng.randrange(VOCABULARY) for _ in said])
        said = [[*row, token] for row, token in zip(said, tokens.tolist(), strict=True)]
        wanted = alone(model, said)
        with attention_in(model):
            logits = decoder.step(tokens)
        assert (logits - wanted).abs().max() < 1e-4, step


def test_a_prompt_is_computed_and_kept_once() -> None:
    model = tiny_model(CONFIGS["llama"])
    with attention_in(model), torch.inference_mode():
        decoder = SharedDecoder(model, [[1, 2, 3, 4], [1, 2, 3, 5]], n=4, room=2, tokens=100)
        decoder.prefill()
    assert decoder.computed_tokens == 32  # five tokens, padded to a whole step
    assert len(decoder.cache.layers[0].keys) == 2


@given(st.integers(1, 24), st.floats(1, 4000), st.floats(1, 4000), st.integers(1, 8))
def test_a_group_is_a_share_of_the_responses(
    n: int, prompt: float, said: float, heads: int
) -> None:
    size = group_size(n, prompt, said, heads)
    assert n % size == 0


def test_long_prompts_are_read_together_and_long_responses_apart() -> None:
    assert group_size(8, prompt=4000, response=20, heads=2) == 8
    assert group_size(8, prompt=20, response=4000, heads=8) < 4


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_these_can_share(name: str, dtype: torch.dtype) -> None:
    assert can_share(tiny_model(CONFIGS[name]).to(dtype))


def test_others_are_found_out() -> None:
    small = {k: v for k, v in SMALL.items() if k in ("vocab_size", "hidden_size")}
    assert not can_share(tiny_model(MambaConfig(**small, num_hidden_layers=2, state_size=4)))
    sinks = GptOssConfig(**SMALL, **WINDOW, num_local_experts=2, num_experts_per_tok=1)
    assert not can_share(tiny_model(sinks))
    model = tiny_model(CONFIGS["llama"])
    forward = model.forward

    def counting(position_ids: Any = None, **more: Any) -> Any:
        return forward(**more)

    model.forward = counting
    assert not can_share(model)
    assert model.config._attn_implementation == "sdpa"
