from __future__ import annotations

import math
import random
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from rlaif.engines.protocol import Sampling
from rlaif.engines.transformers import padded_cache, sample
from rlaif.engines.transformers.attention import attention_in
from rlaif.engines.transformers.padded_cache import PaddedDecoder
from rlaif.engines.transformers.sample import sample_batch
from rlaif.engines.transformers.shared_cache import SharedDecoder
from tests.tiny_models import SMALL, tiny_llama_config, tiny_model

VOCABULARY = 64
MIXED = ["sliding_attention", "full_attention"]
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": tiny_llama_config(**SMALL),
    "qwen3 with a window": Qwen3Config(
        **SMALL, use_sliding_window=True, sliding_window=8, layer_types=MIXED
    ),
    "gemma3": Gemma3TextConfig(**SMALL, sliding_window=8, layer_types=MIXED),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4),
}
LLAMA = tiny_model(CONFIGS["llama"])
ENDS = (3, 11, 40)


def prompts(seed: int, count: int = 6) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 25))] for _ in range(count)]


def run(
    rows: list[list[int]],
    *,
    model: PreTrainedModel = LLAMA,
    seeds: list[int] | None = None,
    ends: tuple[int, ...] = (),
    stopped: Any = None,
    shared: bool = True,
    **sampling: Any,
) -> list[list[int] | None]:
    wanted = Sampling(**{"max_tokens": 12, **sampling})
    seeds = list(range(len(rows))) if seeds is None else seeds
    n, room = wanted.n, wanted.max_tokens
    with attention_in(model) if shared else nullcontext(), torch.inference_mode():
        decoder: SharedDecoder | PaddedDecoder = (
            SharedDecoder(model, rows, n, room, tokens=40)
            if shared
            else PaddedDecoder(model, rows, n, room, pad=0)
        )
        return sample_batch(decoder, wanted, seeds, ends=ends, has_stopped=stopped)


def greedy(model: PreTrainedModel, row: list[int], ends: tuple[int, ...], most: int) -> list[int]:
    """The reference: no cache, no batch."""
    said: list[int] = []
    while len(said) < most and not (said and said[-1] in ends):
        with torch.inference_mode():
            said.append(int(model(input_ids=torch.tensor([row + said])).logits[0, -1].argmax()))
    return said


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_is_the_likeliest_token_each_time(name: str, shared: bool) -> None:
    model = tiny_model(CONFIGS[name])
    rows = prompts(0)
    # Rows end at different steps, so rows leave the batch on the way.
    found = run(rows, model=model, temperature=0.0, ends=ENDS, shared=shared and name != "gpt2")
    assert found == [greedy(model, row, ENDS, 12) for row in rows]
    assert len({len(row or ()) for row in found}) > 1 or name != "llama"


def test_a_prompt_computed_in_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(prompts(1), n=2, shared=False)
    monkeypatch.setattr(padded_cache, "_PREFILL_TOKENS", 20)
    assert run(prompts(1), n=2, shared=False) == whole


def test_tokens_come_as_often_as_the_model_says() -> None:
    row = prompts(2, 1)[0]
    count = 4000
    rows = run([row], n=count, max_tokens=1, temperature=0.7)
    seen = torch.bincount(torch.tensor([r[0] for r in rows if r]), minlength=VOCABULARY) / count
    with torch.inference_mode():
        chances = (LLAMA(input_ids=torch.tensor([row])).logits[0, -1] / 0.7).softmax(-1)
    spread = (chances * (1 - chances) / count).sqrt()
    assert ((seen - chances).abs() < 5 * spread + 1e-3).all()


def test_top_p_leaves_out_the_unlikely_and_no_more() -> None:
    row = prompts(3, 1)[0]
    rows = run([row], n=2000, max_tokens=1, top_p=0.5)
    with torch.inference_mode():
        chances = LLAMA(input_ids=torch.tensor([row])).logits[0, -1].softmax(-1)
    kept: set[int] = set()
    for token in chances.argsort(descending=True).tolist():
        if sum(float(chances[t]) for t in kept) < 0.5:
            kept.add(token)
    assert {r[0] for r in rows if r} == kept


def test_what_a_row_says_follows_from_its_seed_and_not_from_its_company() -> None:
    rows = prompts(4, 8)
    together = run(rows, n=2, ends=ENDS)
    backwards = run(rows[::-1], n=2, ends=ENDS, seeds=list(range(8))[::-1])
    alone = [said for i, row in enumerate(rows) for said in run([row], n=2, seeds=[i], ends=ENDS)]
    assert together == alone
    assert [together[2 * i] for i in range(8)] == [backwards[2 * (7 - i)] for i in range(8)]


def test_responses_to_one_prompt_differ_and_more_of_them_change_none() -> None:
    row = prompts(5, 1)
    four = run(row, n=4)
    assert len({tuple(said or ()) for said in four}) == 4
    assert run(row, n=2) == four[:2]
    assert run(row, n=4, seeds=[99]) != four


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = run(prompts(6))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert run(prompts(6)) == first


def test_the_end_token_ends_and_is_kept() -> None:
    rows = run(prompts(7, 40), ends=ENDS, max_tokens=30)
    for row in rows:
        assert row is not None
        assert not set(row[:-1]) & set(ENDS)
        assert len(row) == 30 or row[-1] in ENDS
    assert any(len(row or ()) < 30 for row in rows)


def test_a_row_that_says_it_has_stopped_is_over() -> None:
    free = run(prompts(8))
    rows = run(prompts(8), stopped=lambda said: len(said) == 3)
    assert rows == [row[:3] if row else None for row in free]


def test_logits_that_are_not_finite_are_no_answer() -> None:
    model = tiny_model(tiny_llama_config(**SMALL, tie_word_embeddings=False))
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = math.nan
    good = [row for row in prompts(9) if 5 not in row]
    rows = run([*good, [5]], model=model, ends=(5,), temperature=0.0, max_tokens=3)
    assert rows[-1] is None
    assert rows[:-1] == run(good, model=model, ends=(5,), temperature=0.0, max_tokens=3)
    assert None not in rows[:-1]


def test_what_comes_after_the_end_token_is_nobodys_business() -> None:
    model = tiny_model(tiny_llama_config(**SMALL, tie_word_embeddings=False))
    rows = prompts(11, 8)
    end = next(e for row in rows if (e := greedy(model, row, (), 1)[0]) not in row)
    rows = [row for row in rows if end not in row]
    wanted = run(rows, model=model, ends=(end,), temperature=0.0)
    with torch.no_grad():
        model.get_input_embeddings().weight[end] = math.nan
    assert [end] in wanted and len(max((r or [] for r in wanted), key=len)) == 12
    assert run(rows, model=model, ends=(end,), temperature=0.0) == wanted


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_no_throw_of_the_dice_picks_a_token_without_a_chance(top_p: float) -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).repeat(2, 1)
    dice = torch.tensor([0.0, 1 - 2**-24], dtype=torch.float64)
    tokens, finite = sample._choose(logits, dice, Sampling(top_p=top_p))
    assert tokens.tolist() == [1, 3]
    assert finite.all()


def test_no_tokens_are_no_tokens() -> None:
    assert run(prompts(10, 2), max_tokens=0) == [[], []]
