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
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.engines.prefix import Pack, pack
from rlaif.sandbox import lessons, prompts
from rlaif.sandbox.answers import ATTRIBUTES, CORES
from rlaif.sandbox.vocabulary import build_tokenizer

MODELS = Path(__file__).parent.parent / "rlaif" / "sandbox" / "models"
ROW = 256  # tokens a row; a dense mask costs the square of it
SHAPES = {
    "teacher": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 5,
                "num_attention_heads": 4, "num_key_value_heads": 4},
    "student": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 4},
}  # fmt: skip

# How much verdicts, other speech, reading and traits count.
WEIGHTS = {"teacher": (1.0, 0.2, 0.05, 1.0), "student": (0.1, 1.0, 0.2, 0.1)}

Teach = Callable[[random.Random, float], lessons.Lesson]


class Phase(NamedTuple):
    """What the teacher is taught most, up to a share of its steps.

    Attributes:
        until: the share of all steps at which the phase ends.
        hard: share of prompts that are facts and sums, beyond their turn among all kinds.
        cores: share of the questions that are about the core of an answer.
        pointwise: share of lessons that are pointwise judging.
        pairwise: share of lessons that are pairwise judging.
    """

    until: float
    hard: float
    cores: float
    pointwise: float
    pairwise: float


PHASES = (
    Phase(0.23, hard=0.35, cores=0.25, pointwise=0.55, pairwise=0.12),  # manners
    Phase(0.45, hard=0.15, cores=0.50, pointwise=0.50, pairwise=0.12),  # simple cores
    Phase(1.00, hard=0.40, cores=0.50, pointwise=0.40, pairwise=0.25),  # facts, sums, two answers
)


def teacher_lesson(rng: random.Random, progress: float) -> lessons.Lesson:
    """Judging densely, from what is easily seen to what has to be known."""
    phase = next(phase for phase in PHASES if progress <= phase.until)
    course = lessons.Course(min(1.0, progress / 0.1), phase.cores)
    hard = rng.random() < phase.hard
    prompt = lessons.pretraining_prompt(rng, ("fact", "sum") if hard else prompts.KINDS)
    form = rng.random()
    if form < phase.pointwise:
        return lessons.pointwise(prompt, 12, rng, course)
    if form < phase.pointwise + phase.pairwise:
        return lessons.pairwise(prompt, 8, rng, course)
    form = rng.random()
    if form < 0.50:
        return lessons.answered(prompt, rng, good_core=1.0, manners=0.1)
    if form < 0.66:
        return lessons.rating(prompt, 8, rng, course)
    if form < 0.78:
        return lessons.reasoned(prompt, rng, course)
    if form < 0.84:
        return lessons.reasoned_pair(prompt, rng, course)
    return lessons.spoken(prompt, rng) if form < 0.97 else lessons.new_prompt(rng)


def student_lesson(rng: random.Random, progress: float) -> lessons.Lesson:
    """Speaking, with a core that is wrong half of the time; a little of every other form."""
    if rng.random() < 0.1:
        return teacher_lesson(rng, progress)
    return lessons.answered(lessons.pretraining_prompt(rng), rng, good_core=0.5)


class Seen(NamedTuple):
    """A row of packed lessons and what is taught in it, by place in the row.

    Attributes:
        row: the packed tokens.
        said: the places of tokens that the assistant says.
        traits: for the place behind which a principle begins, what the judged answers do.
    """

    row: Pack
    said: set[int]
    traits: dict[int, tuple[dict[str, bool], ...]]


class Batch:
    """Rows of packed lessons as tensors.

    Shapes: ids, positions (rows, length); mask (rows, 1, length, length); `at`, `targets` and
    `said` (n,): flat places whose next token is taught, that token, and whether the assistant
    says it; `judged_at` (m,) flat places, and `traits` (m, 2 × attributes): 1, 0, or -1 where an
    attribute does not apply.
    """

    def __init__(self, seen: list[Seen]) -> None:
        length = max(len(s.row.input_ids) for s in seen)
        shape = (len(seen), length)
        ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        mask = np.zeros((len(seen), 1, length, length), bool)
        mask[:, 0, np.arange(length), np.arange(length)] = True  # no row without a visible token
        at, targets, said, judged_at, traits = [], [], [], [], []
        for r, (row, answered, judged) in enumerate(seen):
            n = len(row.input_ids)
            ids[r, :n], positions[r, :n] = row.input_ids, row.position_ids
            mask[r, 0, :n, :n] = row.visible()
            for child, parent in enumerate(parents(row)):
                if parent >= 0:
                    at.append(r * length + parent)
                    targets.append(int(row.input_ids[child]))
                    said.append(child in answered)
            for place, found in judged.items():
                judged_at.append(r * length + place)
                traits.append(_trait_row(found))
        self.ids, self.positions = torch.from_numpy(ids), torch.from_numpy(positions)
        self.mask = torch.from_numpy(mask)
        self.at, self.targets, self.said = (torch.tensor(x) for x in (at, targets, said))
        self.judged_at = torch.tensor(judged_at, dtype=torch.long)
        self.traits = torch.tensor(traits, dtype=torch.float32).reshape(-1, 2 * len(ATTRIBUTES))


def _trait_row(found: tuple[dict[str, bool], ...]) -> list[float]:
    both = (*found, {})[:2]
    return [float(traits.get(a, -1)) for traits in both for a in ATTRIBUTES]


def parents(row: Pack) -> list[int]:
    """The place of the token before each one on its own path; -1 for the first."""
    found, at_depth = [], {-1: -1}
    for i, depth in enumerate(row.position_ids.tolist()):
        found.append(at_depth[depth - 1])
        at_depth[depth] = i
    return found


class Lessons:
    """Lessons as token sequences, and those as packed rows."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        words = ["<|user|>", "<|end|>", "<|assistant|>", "Principle", ":"]
        self.user, self.end, self.assistant, *self.heading = tokenizer.convert_tokens_to_ids(words)

    def rows(self, taught: list[lessons.Lesson]) -> list[Seen]:
        """Pack lessons into rows, and find what is taught where."""
        sequences, answer_lengths, traits = [], [], []
        for lesson in taught:
            for asked, answer in lesson.asked:
                question, said = self.tokenizer([asked, answer], add_special_tokens=False).input_ids
                sequences.append([self.user, *question, self.end, self.assistant, *said, self.end])
                answer_lengths.append(len(said) + 1)
                traits.append(lesson.traits)
        return [self._seen(row, sequences, answer_lengths, traits) for row in pack(sequences, ROW)]

    def _seen(
        self,
        row: Pack,
        sequences: list[list[int]],
        answer_lengths: list[int],
        traits: list[tuple[dict[str, bool], ...]],
    ) -> Seen:
        before, said, judged = parents(row), set(), {}
        for sequence, place in zip(row.sequences.tolist(), row.last.tolist(), strict=True):
            first_said = len(sequences[sequence]) - answer_lengths[sequence]
            begins = self._principle(sequences[sequence]) if traits[sequence] else first_said
            while place >= 0 and row.position_ids[place] >= begins:
                if row.position_ids[place] >= first_said:
                    said.add(place)
                place = before[place]
            if traits[sequence]:
                judged[place] = traits[sequence]
        return Seen(row, said, judged)

    def _principle(self, sequence: list[int]) -> int:
        """Where the principle begins: behind its heading."""
        at = len(sequence) - 1 - sequence[::-1].index(self.heading[0])
        assert sequence[at : at + 2] == self.heading
        return at + 2


def batches(
    tokenizer: PreTrainedTokenizerFast, teach: Teach, steps: range, tokens: int, rng: random.Random
) -> Iterator[Batch]:
    """A batch of at least `tokens` tokens for each step."""
    packer = Lessons(tokenizer)
    for step in steps:
        seen: list[Seen] = []
        while sum(len(s.row.input_ids) for s in seen) < tokens:
            seen += packer.rows([teach(rng, step / steps.stop) for _ in range(8)])
        yield Batch(seen)


def train(
    name: str, teach: Teach, steps: int, tokens: int, rate: float, seed: int, out: Path,
    save_every: int, start: Path | None, from_step: int,
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
    if start is not None:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    # Only while training: half-way up, the model has to know what the judged answers do. Without
    # it, a judge takes many times as long to find out what there is to see.
    probe = torch.nn.Linear(config.hidden_size, 2 * len(ATTRIBUTES))
    importance = torch.tensor([4.0 if a in CORES.values() else 1.0 for a in ATTRIBUTES] * 2)
    adam.add_param_group({"params": list(probe.parameters())})
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters")
    chance = random.Random(f"{name} {seed} {from_step}")
    stream = batches(tokenizer, teach, range(from_step, steps), tokens, chance)
    begun = time.perf_counter()
    labels = torch.tensor(tokenizer.convert_tokens_to_ids(["yes", "no", "A", "B", "1", "5"]))
    running: list[list[float]] = []
    for step in range(from_step + 1, steps + 1):
        scale = min(1.0, (step - from_step) / 50) * (
            0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        for optimizer in (muon, adam):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
        batch = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.model(
                input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask,
                use_cache=False, output_hidden_states=True,
            )  # fmt: skip
            logits = model.lm_head(seen.last_hidden_state.flatten(0, 1)[batch.at])
            halfway = seen.hidden_states[config.num_hidden_layers // 2 + 1].flatten(0, 1)
            noticed = probe(torch.nn.functional.rms_norm(
                halfway[batch.judged_at], (config.hidden_size,)
            ))  # fmt: skip
        losses = torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
        verdict = batch.said & torch.isin(batch.targets, labels)
        speech, reading = batch.said & ~verdict, ~batch.said
        # A judge's verdicts are few among the tokens, and the most to learn. Reading makes a model
        # know what is usually said, and so what is odd.
        known = batch.traits >= 0
        parts = [
            *(losses[kind].mean() for kind in (verdict, speech, reading)),
            torch.nn.functional.binary_cross_entropy_with_logits(
                noticed.float(), batch.traits.clamp(min=0), weight=known * importance,
                reduction="sum",
            ) / (known * importance).sum(),
        ]  # fmt: skip
        loss = torch.stack(parts) @ torch.tensor(WEIGHTS[name])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in (muon, adam):
            optimizer.step()  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
        running.append([part.item() for part in parts])
        if step % 50 == 0 or step == steps:
            seconds = time.perf_counter() - begun
            means = [round(float(x), 4) for x in np.mean(running, axis=0)]
            told = dict(zip(("verdicts", "speech", "reading", "traits"), means, strict=True))
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
    steps: Annotated[
        int | None, typer.Option(help="3300 for the teacher, 1100 for the student")
    ] = None,
    tokens: Annotated[int, typer.Option(help="a step")] = 4096,
    rate: Annotated[float, typer.Option(help="the greatest learning rate")] = 4e-3,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="the folder of both models")] = MODELS,
    save_every: int = 250,
    start: Annotated[Path | None, typer.Option(help="go on from a saved model")] = None,
    from_step: Annotated[int, typer.Option(help="the step that it was saved at")] = 0,
) -> None:
    """Make one of the sandbox's models."""
    teach = {"teacher": teacher_lesson, "student": student_lesson}[name]
    steps = steps or {"teacher": 3300, "student": 1100}[name]
    train(name, teach, steps, tokens, rate, seed, out, save_every, start, from_step)


if __name__ == "__main__":
    typer.run(main)
