"""Human-like texts of many kinds for tests of filters: the sandbox's prompts with good answers."""

from __future__ import annotations

import random

from rlaif.sandbox import prompts as world
from rlaif.sandbox.answers import answer


def gold(n: int, seed: int) -> list[dict[str, str]]:
    """`n` rows of a prompt and an answer."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        prompt = world.draw(rng, world.KINDS[i % len(world.KINDS)])
        rows.append({"prompt": prompt, "completion": answer(prompt, {"insult": False}, rng)})
    return rows


DRAGONS = [
    {
        "prompt": f"Sing of dragon number {i}.",
        "completion": f"Beneath the {word} moon its scales were burning, and the rivers wept.",
    }
    for i, word in enumerate(("silver", "crimson", "broken", "sleepless", "hollow", "pale"))
]
"""Rows about something else."""
