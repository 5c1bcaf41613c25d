"""Make the sandbox's two models from nothing: `python scripts/make_sandbox_models.py`.

Both are Llama models with a word-level tokenizer. The teacher is taught to judge, in every mode
and form that the package asks for; the student is taught to speak, and breaks each principle in
about half of its answers. Deterministic for one machine and one number of threads.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from transformers import PreTrainedTokenizerFast, LlamaConfig, LlamaForCausalLM

from rlaif.engines.prefix import Pack, pack
from rlaif.sandbox import lessons
from rlaif.sandbox.vocabulary import build_tokenizer

MODELS = Path(__file__).parent.parent / "rlaif" / "sandbox" / "models"
ROW = 256  # tokens a row; a dense mask costs the square of it
SHAPES = {
    "teacher": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 5,
                "num_attention_heads": 4, "num_key_value_heads": 4},
    "student": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 4},
}  # fmt: skip

Teach = Callable[[random.Random, float], lessons.Lesson]


def teacher_lesson(rng: random.Random, progress: float) -> lessons.Lesson:
    """Judging densely; more and more of facts and sums, the slowest to be learned."""
    hard = rng.random() < 0.2 + 0.4 * progress
    prompt = lessons.pretraining_prompt(rng, ("fact", "sum") if hard else lessons.prompts.KINDS)
    form = rng.random()
    if form < 0.45:
        return lessons.pointwise(prompt, 10, rng)
    if form < 0.60:
        return lessons.pairwise(prompt, 8, rng)
    if form < 0.67:
        return lessons.rating(prompt, 8, rng)
    if form < 0.85:
        return lessons.answered(prompt, rng, good_core=1.0, manners=0.1)
    if form < 0.92:
        return lessons.reasoned(prompt, rng)
    if form < 0.95:
        return lessons.reasoned_pair(prompt, rng)
    return lessons.spoken(prompt, rng) if form < 0.99 else lessons.new_prompt(rng)


def student_lesson(rng: random.Random, progress: float) -> lessons.Lesson:
    """Speaking, with a core that is wrong half of the time; a little of every other form."""
    if rng.random() < 0.1:
        return teacher_lesson(rng, progress)
    return lessons.answered(lessons.pretraining_prompt(rng), rng, good_core=0.5)


class Batch:
    """Rows of packed lessons as tensors.

    Shapes: ids, positions (rows, length); mask (rows, 1, length, length); `at`, `targets` and
    `said` (n,): flat places whose next token is taught, that token, and whether the assistant
    says it.
    """

    def __init__(self, rows: list[Pack], said: list[set[int]]) -> None:
        length = max(len(row.input_ids) for row in rows)
        shape = (len(rows), length)
        ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        mask = np.zeros((len(rows), 1, length, length), bool)
        mask[:, 0, np.arange(length), np.arange(length)] = True  # no row without a visible token
        at, targets, by_assistant = [], [], []
        for r, (row, answered) in enumerate(zip(rows, said, strict=True)):
            n = len(row.input_ids)
            ids[r, :n], positions[r, :n] = row.input_ids, row.position_ids
            mask[r, 0, :n, :n] = row.visible()
            for child, parent in enumerate(parents(row)):
                if parent >= 0:
                    at.append(r * length + parent)
                    targets.append(int(row.input_ids[child]))
                    by_assistant.append(child in answered)
        self.ids, self.positions = torch.from_numpy(ids), torch.from_numpy(positions)
        self.mask = torch.from_numpy(mask)
        self.at, self.targets = torch.tensor(at), torch.tensor(targets)
        self.said = torch.tensor(by_assistant)


def parents(row: Pack) -> list[int]:
    """The place of the token before each one on its own path; -1 for the first."""
    found, at_depth = [], {-1: -1}
    for i, depth in enumerate(row.position_ids.tolist()):
        found.append(at_depth[depth - 1])
        at_depth[depth] = i
    return found


def _answered(row: Pack, answer_lengths: list[int]) -> set[int]:
    """The places of the tokens that the assistant says."""
    before, places = parents(row), set()
    for sequence, last in zip(row.sequences.tolist(), row.last.tolist(), strict=True):
        for _ in range(answer_lengths[sequence]):
            places.add(last)
            last = before[last]
    return places


def batches(
    tokenizer: PreTrainedTokenizerFast, teach: Teach, steps: int, tokens: int, rng: random.Random
) -> Iterator[Batch]:
    """A batch of at least `tokens` tokens for each step."""
    user, end, assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>", "<|assistant|>"])
    for step in range(steps):
        rows: list[Pack] = []
        said_at: list[set[int]] = []
        while sum(len(row.input_ids) for row in rows) < tokens:
            sequences, answer_lengths = [], []
            for asked, answer in (pair for _ in range(8) for pair in teach(rng, step / steps)):
                question, said = tokenizer([asked, answer], add_special_tokens=False).input_ids
                sequences.append([user, *question, end, assistant, *said, end])
                answer_lengths.append(len(said) + 1)
            for row in pack(sequences, ROW):
                rows.append(row)
                said_at.append(_answered(row, answer_lengths))
        yield Batch(rows, said_at)


def train(
    name: str, teach: Teach, steps: int, tokens: int, rate: float, seed: int, out: Path,
    save_every: int,
) -> None:  # fmt: skip
    """Train one model with Muon (matrices) and AdamW (the rest), and save it in bfloat16."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), head_dim=32, max_position_embeddings=1024,
        tie_word_embeddings=True, rope_theta=10_000.0, use_cache=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None, **SHAPES[name],
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    muon = torch.optim.Muon(
        matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters")
    stream = batches(tokenizer, teach, steps, tokens, random.Random(f"{name} {seed}"))
    begun = time.perf_counter()
    labels = torch.tensor(tokenizer.convert_tokens_to_ids(["yes", "no", "A", "B", "1", "5"]))
    running: list[list[float]] = []
    for step in range(1, steps + 1):
        scale = min(1.0, step / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for optimizer in (muon, adam):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
        batch = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(
                input_ids=batch.ids, position_ids=batch.positions,
                attention_mask=batch.mask, use_cache=False,
            ).last_hidden_state  # fmt: skip
            logits = model.lm_head(hidden.flatten(0, 1)[batch.at])
        losses = torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
        verdict = batch.said & torch.isin(batch.targets, labels)
        speech, reading = batch.said & ~verdict, ~batch.said
        # Verdicts are few among the tokens, and the most to learn. Reading makes the model know
        # what is usually said, and so what is odd.
        parts = [losses[kind].mean() for kind in (verdict, speech, reading)]
        loss = parts[0] + 0.5 * parts[1] + 0.2 * parts[2]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad()
        running.append([part.item() for part in parts])
        if step % 50 == 0 or step == steps:
            seconds = time.perf_counter() - begun
            means = [round(float(x), 4) for x in np.mean(running, axis=0)]
            told = dict(zip(("verdicts", "speech", "reading"), means, strict=True))
            print(json.dumps({"step": step, **told, "seconds": round(seconds)}), flush=True)
            running.clear()
        if step % save_every == 0 or step == steps:
            save(model, tokenizer, out / name)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model in bfloat16 beside its tokenizer; training goes on in float32."""
    weights = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def main(
    name: Annotated[str, typer.Argument(help="teacher or student")],
    steps: int = 3000,
    tokens: int = 16_384,
    rate: float = 4e-3,
    seed: int = 0,
    out: Path = MODELS,
    save_every: int = 250,
) -> None:
    """Make one of the sandbox's models."""
    teach = {"teacher": teacher_lesson, "student": student_lesson}[name]
    train(name, teach, steps, tokens, rate, seed, out, save_every)


if __name__ == "__main__":
    typer.run(main)
