"""What sharing prefixes is worth: labels a second, three ways, on a random model of your size.

    python scripts/bench_label.py --width 256 --layers 6 --prompts 16

    packed   every common prefix computed once (what the engine does)
    padded   batches of whole prompts, sorted by length
    single   one forward pass a label

The ways take turns, so that whatever else the machine does falls on all of them; a ratio is one
of medians. Prompts are random tokens in the shape of judge prompts: a shared head, a prompt,
responses, and principles at the end.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from rlaif.engines.prefix import trie_floor
from rlaif.engines.score import Scorer

VOCABULARY = 8192
TOKENS, ONE_AT_A_TIME = 1024, 1


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    model = random_model(args.width, args.layers).to(getattr(torch, args.dtype))
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    sequences = judge_prompts(args.prompts, args.responses, args.principles)
    ways: dict[str, Callable[[], Scorer]] = {
        "packed": lambda: Scorer(model, "random", TOKENS),
        "padded": lambda: Scorer(model, "random", TOKENS, packing=False),
        "single": lambda: Scorer(model, "random", ONE_AT_A_TIME, packing=False),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    tokens = {}
    for round_ in range(args.rounds + 1):
        for way, make in ways.items():
            scorer = make()
            start = time.perf_counter()
            scorer.logprobs(sequences, lambda logprobs: logprobs[:, :2])
            if round_:  # the first one warms up
                seconds[way].append(time.perf_counter() - start)
            tokens[way] = scorer.computed_tokens
    report(seconds, tokens, len(sequences), trie_floor(sequences))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Labels a second: packed, padded, single.")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--principles", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def random_model(width: int, layers: int) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=2048,
    )
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config).eval()
    return model


def judge_prompts(prompts: int, responses: int, principles: int) -> list[list[int]]:
    rng = random.Random(0)

    def some(least: int, most: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(rng.randint(least, most))]

    head, tails = some(20, 20), [some(30, 60) for _ in range(principles)]
    sequences = []
    for _ in range(prompts):
        prompt = head + some(20, 150)
        for _ in range(responses):
            response = prompt + some(40, 80)
            sequences += [response + tail for tail in tails]
    return sequences


def report(
    seconds: dict[str, list[float]], tokens: dict[str, int], labels: int, floor: int
) -> None:
    packed = statistics.median(seconds["packed"])
    print(f"{labels} labels; the trie of all prompts has {floor:,} tokens")
    print(f"{'':8}{'seconds':>10}{'labels/s':>10}{'tokens':>12}{'/ trie':>8}{'/ packed':>10}")
    for way, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{way:8}{median:10.2f}{labels / median:10.0f}{tokens[way]:12,}"
            f"{tokens[way] / floor:8.2f}{median / packed:10.2f}"
        )


if __name__ == "__main__":
    main()
