from __future__ import annotations

import math
import random
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from rlaif.engines.transformers.score import Scorer
from tests import tiny_models
from tests.tiny_models import tiny_llama_config, tiny_model

VOCABULARY = 64
SMALL = tiny_models.SMALL | {"num_hidden_layers": 4}
WINDOW = 12
MIXED = ["sliding_attention", "full_attention"] * 2
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": tiny_llama_config(**SMALL),
    "mistral with a window": MistralConfig(**SMALL, sliding_window=WINDOW),
    "qwen3": Qwen3Config(**SMALL),
    "qwen3 with a window": Qwen3Config(
        **SMALL, use_sliding_window=True, sliding_window=WINDOW, layer_types=MIXED
    ),
    "gemma3": Gemma3TextConfig(**SMALL, sliding_window=WINDOW, layer_types=MIXED),
    "gemma2, whose logits are capped": Gemma2Config(
        **SMALL, sliding_window=WINDOW, layer_types=MIXED, attn_implementation="eager"
    ),
}


def tree(seed: int, prompts: int = 3, deep: int = 20) -> list[list[int]]:
    """Judge prompts in small: heads, responses and tails of random lengths, each tail repeated."""
    rng = random.Random(seed)

    def some(least: int, most: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(rng.randint(least, most))]

    tails = [some(2, 6) for _ in range(4)]
    rows = []
    for _ in range(prompts):
        head = some(5, deep)
        for _ in range(rng.randint(1, 3)):
            response = some(3, deep)
            rows += [head + response + tail for tail in tails]
    rng.shuffle(rows)
    return rows


def whole(logprobs: Tensor) -> Tensor:
    return logprobs


def alone(model: PreTrainedModel, rows: list[list[int]]) -> Tensor:
    """The reference: each sequence by itself, without any mask."""
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([row])).logits[0, -1].float() for row in rows]
    return torch.stack(logits).log_softmax(-1)


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_is_what_each_sequence_gives_alone(name: str) -> None:
    model = tiny_model(CONFIGS[name])
    for seed in range(3):
        rows = tree(seed)
        # Long sequences reach beyond the window, so a mask without it would show.
        assert max(map(len, rows)) > 2 * WINDOW
        scorer = Scorer(model, name, tokens=100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = torch.tensor(scorer.logprobs(rows, whole))
        assert (found - alone(model, rows)).abs().max() < 1e-5
        assert scorer.computed_tokens < sum(map(len, rows))


@pytest.mark.parametrize("packing", [True, False])
def test_several_passes_at_once_give_the_same_to_the_last_bit(
    packing: bool, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)  # each pass has one in both: their number is the order of summing
    model, rows = tiny_model(CONFIGS["qwen3 with a window"]), tree(3)
    one = Scorer(model, "m", tokens=60, packing=packing)
    three = Scorer(model, "m", tokens=60, packing=packing, workers=3)
    assert three.logprobs(rows, whole) == one.logprobs(rows, whole)
    assert three.computed_tokens == one.computed_tokens


def test_padded_batches_give_the_same() -> None:
    model = tiny_model(CONFIGS["qwen3 with a window"])
    rows = tree(1)
    scorer = Scorer(model, "m", tokens=100, packing=False)
    assert (torch.tensor(scorer.logprobs(rows, whole)) - alone(model, rows)).abs().max() < 1e-5
    assert scorer.computed_tokens >= sum(map(len, rows))


def test_a_model_with_positions_of_its_own_is_found_out_and_named_once() -> None:
    model = tiny_model(CONFIGS["llama"])
    forward = model.forward

    def counting(position_ids: Any = None, logits_to_keep: Any = 0, **more: Any) -> Any:
        return forward(logits_to_keep=logits_to_keep, **more)

    model.forward = counting
    scorer = Scorer(model, "own-positions", tokens=100)
    rows = tree(2)
    with pytest.warns(RuntimeWarning, match="own-positions does not take packed prompts"):
        found = torch.tensor(scorer.logprobs(rows, whole))
    assert (found - alone(model, rows)).abs().max() < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.logprobs(rows, whole)


def test_a_model_whose_attention_is_more_than_that_is_scored_in_padded_batches() -> None:
    sinks = GptOssConfig(
        **SMALL,
        sliding_window=WINDOW,
        layer_types=MIXED,
        num_local_experts=2,
        num_experts_per_tok=1,
    )
    model = tiny_model(sinks)
    with pytest.warns(RuntimeWarning, match="with-sinks"):
        found = torch.tensor(Scorer(model, "with-sinks", tokens=100).logprobs(tree(2), whole))
    assert (found - alone(model, tree(2))).abs().max() < 1e-5


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_model_attends_as_before_once_it_has_scored(implementation: str) -> None:
    model = tiny_model(CONFIGS["llama"])
    model.set_attn_implementation(implementation)
    rows = tree(3)
    wanted = alone(model, rows)
    scorer = Scorer(model, "m", tokens=100)
    assert (torch.tensor(scorer.logprobs(rows, whole)) - wanted).abs().max() < 1e-5
    assert scorer.computed_tokens < sum(map(len, rows))
    assert model.config._attn_implementation == implementation
    assert torch.equal(alone(model, rows), wanted)


def test_an_older_architecture_is_right_one_way_or_the_other() -> None:
    model = tiny_model(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4))
    rows = tree(4)
    found = torch.tensor(Scorer(model, "gpt2", tokens=100).logprobs(rows, whole))
    assert (found - alone(model, rows)).abs().max() < 1e-5


def test_bfloat16_packs_too() -> None:
    model = tiny_model(CONFIGS["qwen3"]).to(torch.bfloat16)
    rows = tree(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.tensor(Scorer(model, "m", tokens=200).logprobs(rows, whole))
    assert (found - alone(model, rows)).abs().max() < 0.1


def test_one_broken_sequence_does_not_spoil_its_pack() -> None:
    model = tiny_model(tiny_llama_config(**SMALL, tie_word_embeddings=False))
    rows = [row for row in tree(6) if 7 not in row]
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = math.nan
    broken = [*rows[:3], [*rows[3], 7], *rows[4:]]
    found = Scorer(model, "m", tokens=10_000).logprobs(broken, whole)
    good = [i for i in range(len(broken)) if i != 3]
    assert all(math.isnan(x) for x in found[3] or ())
    wanted = alone(model, [broken[i] for i in good])
    assert (torch.tensor([found[i] for i in good]) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("packing", [True, False])
def test_out_of_memory_halves_the_batches_and_says_so_once(packing: bool) -> None:
    model = tiny_model(CONFIGS["llama"])
    forward, sizes = model.forward, []

    def small(input_ids: Tensor, **more: Any) -> Any:
        if input_ids.numel() > 90:
            raise torch.OutOfMemoryError
        sizes.append(input_ids.numel())
        return forward(input_ids=input_ids, **more)

    def logits_to_keep(self: Any, input_ids: Tensor, logits_to_keep: int = 0, **more: Any) -> Any:
        return small(input_ids, logits_to_keep=logits_to_keep, **more)

    rows = tree(7)
    wanted = alone(model, rows)
    too_long = [[1] * 95]
    model.forward = logits_to_keep.__get__(model)
    scorer = Scorer(model, "m", tokens=4096, packing=packing)
    with pytest.warns(RuntimeWarning, match="m: out of memory") as told:
        found = scorer.logprobs(rows + too_long, whole)
    assert len(told) == 1
    assert found[-1] is None
    assert (torch.tensor(found[:-1]) - wanted).abs().max() < 1e-5
    assert max(sizes) > 10  # not one token at a time


def test_a_call_says_the_same_whatever_came_before_it() -> None:
    model = tiny_model(CONFIGS["llama"])
    fresh, used = Scorer(model, "m", tokens=100), Scorer(model, "m", tokens=100)
    used.logprobs(tree(8), whole)
    assert used.logprobs(tree(9), whole) == fresh.logprobs(tree(9), whole)
