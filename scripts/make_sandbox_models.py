"""Make the sandbox's two models from nothing: `python scripts/make_sandbox_models.py`.

Both are Llama models with a word-level tokenizer. The teacher is taught to judge, in every mode
and form that the package asks for; the student is taught to speak, and breaks each principle in
about half of its answers. Two processes of one thread each share a step; what comes out follows
from the seed alone on one kind of processor.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import typer
from sandbox_batches import HARD, SENTENCES, Batch, batches
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, rms_norm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.sandbox import lessons, prompts
from rlaif.sandbox.answers import ATTRIBUTES, CORES
from rlaif.sandbox.quickstart import multiplies_bfloat16
from rlaif.sandbox.vocabulary import build_tokenizer

MODELS = Path(__file__).parent.parent / "rlaif" / "sandbox" / "models"
SHAPES = {
    "teacher": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6,
                "num_attention_heads": 4, "num_key_value_heads": 4},
    "student": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 4},
}  # fmt: skip

STEPS = {"teacher": 3200, "student": 6000, "misses": 1600, "finish": 2000}
RATES = {"teacher": 4e-3, "student": 4e-3, "misses": 4e-3, "finish": 2e-3}
PARTS = {"teacher": ("teacher", "misses", "finish")}
"""What makes a model, in turn; parts behind the first go on with what is there. The teacher that
ships came to "misses" by first parts of an earlier kind, which marked a wrong core at its end
alone, and not the topic of what advice is wanted on (`Probes`): made anew, it is another one."""
SHARPNESS = {"teacher": 1.0, "student": 1.22}
"""What a model's logits are multiplied by once it is made. A small model leaves about a thousandth
of each word's probability to words that are wrong there, and says one in every fiftieth answer; a
little sharper, it hardly ever does, while a coin flip stays one."""
WORKERS = 2
ROWS = 8  # a step, of each worker

LOSSES = ("verdicts", "speech", "reading", "traits", "sentences", "knowledge", "wishes", "findings")
WEIGHTS = {
    "teacher": (1.0, 0.2, 0.05, 1.0, 1.0, 0.5, 0.5, 1.0),
    "student": (0.1, 1.0, 0.1, 0.1, 0.1, 0.5, 0.1, 0.1),
    "misses": (1.0, 0.3, 0.05, 1.0, 2.0, 0.5, 0.5, 1.0),
    "finish": (1.0, 0.3, 0.05, 1.0, 2.0, 0.5, 0.5, 1.0),
}
"""How much each loss counts; `Probes` says what the last five are."""


class Phase(NamedTuple):
    """What the teacher is taught most, up to a share of its steps.

    Attributes:
        until: the share of all steps at which the phase ends.
        glimpses: share of lessons that show bare answers and ask nothing.
        hard: share of prompts that are facts and sums, beyond their turn among all kinds.
        cores: share of the questions that are about the core of an answer.
        pointwise: share of lessons that are pointwise judging.
        pairwise: share of lessons that are pairwise judging.
    """

    until: float
    glimpses: float
    hard: float
    cores: float
    pointwise: float
    pairwise: float


PHASES = (
    Phase(0.08, 0.98, hard=0.85, cores=0.25, pointwise=0.60, pairwise=0.10),  # facts and sums
    Phase(0.25, 0.45, hard=0.35, cores=0.40, pointwise=0.55, pairwise=0.20),  # what there is
    Phase(0.50, 0.20, hard=0.30, cores=0.45, pointwise=0.45, pairwise=0.30),  # what is asked
    Phase(1.00, 0.10, hard=0.25, cores=0.45, pointwise=0.45, pairwise=0.30),  # all of it
)


def teacher_lesson(rng: random.Random, progress: float, missed: float = 0.0) -> lessons.Lesson:
    """Judging densely, from what is easily seen to what has to be known."""
    phase = next(phase for phase in PHASES if progress <= phase.until)
    course = lessons.Course(min(1.0, progress / 0.25), phase.cores, missed)
    hard = rng.random() < phase.hard
    prompt = lessons.pretraining_prompt(rng, ("fact", "sum") if hard else prompts.KINDS)
    if rng.random() < phase.glimpses:
        return lessons.glimpses(prompt, 8, rng, missed)
    form = rng.random()
    if form < phase.pointwise:
        return lessons.pointwise(prompt, 12, rng, course)
    if form < phase.pointwise + phase.pairwise:
        return lessons.pairwise(prompt, 8, rng, course)
    form = rng.random()
    if form < 0.30:
        return lessons.answered(prompt, rng, good_core=1.0, manners=0.1)
    if form < 0.60:
        return lessons.rating(prompt, 12, rng, course)
    if form < 0.72:
        return lessons.reasoned(prompt, rng, course)
    if form < 0.80:
        return lessons.reasoned_pair(prompt, rng, course)
    return lessons.spoken(prompt, rng, course) if form < 0.97 else lessons.new_prompt(rng)


def missing_lesson(rng: random.Random, progress: float) -> lessons.Lesson:
    """Answers that help well, but with something else than was asked: a judge that has hardly seen
    one takes it for right, and its students come to say it.

    First bare advice that is plainly about something else, and nothing beside it, or a model goes
    on saying what is mostly so; then all mixtures; then all that a teacher has to know.
    """
    if progress < 0.12:
        prompt = lessons.pretraining_prompt(rng, ("advice",))
        return lessons.glimpses(prompt, 8, rng, missed=0.8, own=0.0)
    if progress < 0.55 and rng.random() < 0.65:
        return mixed_up(rng)
    return finishing_lesson(rng, progress)


def mixed_up(rng: random.Random) -> lessons.Lesson:
    """Answers that are of this question in part."""
    prompt = lessons.pretraining_prompt(rng, ("advice", "advice", "fact", "sum"))
    if rng.random() < 0.7:
        return lessons.glimpses(prompt, 8, rng, missed=0.7)
    return lessons.pointwise(prompt, 12, rng, lessons.Course(0.5, 0.5, missed=0.35))


def finishing_lesson(rng: random.Random, progress: float) -> lessons.Lesson:
    """What a teacher says before a verdict, so that the verdict can follow from it; judging, so
    that nothing is forgotten."""
    form = rng.random()
    if form < 0.1:
        return mixed_up(rng)
    if form < 0.7:
        return teacher_lesson(rng, 1.0, missed=0.3)
    course = lessons.Course(missed=0.3)
    hard = rng.random() < 0.25
    prompt = lessons.pretraining_prompt(rng, ("fact", "sum") if hard else prompts.KINDS)
    form = rng.random()
    if form < 0.28:
        return lessons.reasoned(prompt, rng, course)
    if form < 0.55:
        return lessons.reasoned_pair(prompt, rng, course)
    if form < 0.68:
        return lessons.tied(prompt, 8, rng, course)
    return lessons.spoken(prompt, rng, course)


def student_lesson(rng: random.Random, progress: float) -> lessons.Lesson:
    """Speaking, with a core that is wrong half of the time; a little of every other form."""
    if rng.random() < 0.1:
        return teacher_lesson(rng, progress)
    # Bare answers first: what to say is in the core, and a few words each make for many of them.
    bare = progress < 0.5 and rng.random() < 0.7
    hard = bare and rng.random() < 0.25
    prompt = lessons.pretraining_prompt(rng, ("fact", "sum") if hard else prompts.KINDS)
    lesson = lessons.answered(prompt, rng, good_core=0.5, manners=0.05 if bare else 0.5)
    return lesson._replace(prompt=prompt)  # so that it is taught to know the answer


LESSONS = {
    "teacher": teacher_lesson, "student": student_lesson, "misses": missing_lesson,
    "finish": finishing_lesson,
}  # fmt: skip
DECISIVE = ["yes", "no", "A", "B", "1", "5", "kept", "broken", "apply"]
"""The words that a verdict is read from; and, last, those that a critique comes to."""


class Probes(torch.nn.Module):
    """What a model has to know on its way up, only while it is trained.

    After two layers, the answer to a fact or a sum, or the topic of what advice is wanted on, at
    the end of the prompt; after three, what each sentence of an answer is and what a principle
    asks, each at its last word, and whether a word of a core is of another question; after four,
    what the judged answers do, at the place before the principle; after five, whether they do what
    the principle is about, at the place before the verdict. Without them, a judge takes many times
    as long to find out what there is to see: a verdict says little about what it was given for.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.sentences = torch.nn.Linear(hidden, len(SENTENCES))
        self.wishes = torch.nn.Linear(hidden, 2 * len(ATTRIBUTES))
        self.traits = torch.nn.Linear(hidden, 2 * len(ATTRIBUTES))
        self.findings = torch.nn.Linear(hidden, 6)
        self.importance = torch.tensor(
            [4.0 if a in CORES.values() else 1.0 for a in ATTRIBUTES] * 2
        )

    def forward(
        self, model: LlamaForCausalLM, hidden: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[Tensor], Tensor]:
        """The losses, in the order of `LOSSES`; and which sentences were read right."""
        second, third, fourth, fifth = (
            hidden[min(i, len(hidden) - 1)].flatten(0, 1) for i in (2, 3, 4, 5)
        )
        traits = self.traits(_normed(fourth[batch.judged_at]))
        read = self.sentences(_normed(third[batch.read_at]))
        knows = model.lm_head(model.model.norm(second[batch.asked_at]))
        wishes = self.wishes(_normed(third[batch.wished_at]))
        findings = self.findings(_normed(fifth[batch.found_at])).view(-1, 3)
        weight = (batch.traits >= 0) * self.importance
        wrong = binary_cross_entropy_with_logits(
            traits.float(), batch.traits.clamp(min=0), weight=weight, reduction="sum"
        )
        there = batch.findings.flatten() >= 0
        return [
            wrong / weight.sum().clamp(min=1),
            _mean(cross_entropy(read.float(), batch.read, reduction="none")),
            _mean(cross_entropy(knows.float(), batch.answers, reduction="none")),
            _mean(cross_entropy(wishes.float(), batch.wishes, reduction="none")),
            _mean(cross_entropy(
                findings.float()[there], batch.findings.flatten()[there], reduction="none"
            )),
        ], read.argmax(-1) == batch.read  # fmt: skip


def _normed(hidden: Tensor) -> Tensor:
    return rms_norm(hidden, hidden.shape[-1:])


def _mean(losses: Tensor) -> Tensor:
    return losses.sum() / max(1, len(losses))


def new_model(name: str, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A model with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), head_dim=32, max_position_embeddings=1024,
        tie_word_embeddings=True, rope_theta=10_000.0, use_cache=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None, **SHAPES[name],
    )  # fmt: skip
    return LlamaForCausalLM(config)


def load_model(folder: Path) -> LlamaForCausalLM:
    """A model that `save` wrote, to be trained on: in float32."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)


def train(
    worker: int, name: str, steps: int, rate: float, seed: int, out: Path, meet: Path
) -> None:
    """Train one model with Muon (matrices) and AdamW (the rest), and save it in bfloat16."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet.as_uri(), rank=worker, world_size=WORKERS)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    later = name not in SHAPES
    folder = out / ("teacher" if later else name)
    model = load_model(folder) if later else new_model(name, tokenizer)
    probes = Probes(model.config.hidden_size)
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    others += probes.parameters()
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    teach = LESSONS[name]
    chance = random.Random(f"{name} {seed} {worker}")
    labels = torch.tensor(tokenizer.convert_tokens_to_ids(DECISIVE[: 6 + 3 * later]))
    weights = torch.tensor(WEIGHTS[name])
    figures: list[list[float]] = []
    begun = time.perf_counter()
    for step, batch in enumerate(batches(tokenizer, teach, range(steps), ROWS, chance), start=1):
        for optimizer in (muon, adam):
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule(step, steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            seen = model.model(
                input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask,
                use_cache=False, output_hidden_states=True,
            )  # fmt: skip
            logits = model.lm_head(seen.last_hidden_state.flatten(0, 1)[batch.at])
            probed, right = probes(model, seen.hidden_states, batch)
        losses = cross_entropy(logits.float(), batch.targets, reduction="none")
        # A judge's verdicts are few among the tokens, and the most to learn. Reading makes a model
        # know what is usually said, and so what is odd.
        verdict = batch.said & torch.isin(batch.targets, labels)
        kinds = verdict, batch.said & ~verdict, ~batch.said
        parts = torch.stack([*(_mean(losses[kind]) for kind in kinds), *probed])
        (parts @ weights).backward()  # type: ignore[no-untyped-call]
        share([*matrices, *others])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in (muon, adam):
            optimizer.step()  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
        hard = [right[torch.isin(batch.read, kind)].float().mean().item() for kind in HARD.values()]
        figures.append([*parts.tolist(), *hard])
        if worker == 0 and (step % 50 == 0 or step == steps):
            report(step, figures, time.perf_counter() - begun)
            figures.clear()
        if worker == 0 and (step % 250 == 0 or step == steps):
            save(model, tokenizer, folder, SHARPNESS.get(name, 1.0))
    dist.destroy_process_group()


def schedule(step: int, steps: int) -> float:
    """The share of the greatest rate: a short warm-up, then a cosine to 2 %."""
    return min(1.0, step / 50) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))


def share(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Give every worker the mean of all workers' gradients."""
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    parts = torch.split(flat / WORKERS, [grad.numel() for grad in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))


def report(step: int, figures: list[list[float]], seconds: float) -> None:
    """Print the mean losses, and how often words of facts, sums and advice were read right."""
    means = [round(float(x), 4) for x in np.nanmean(figures, axis=0)]
    told = dict(zip((*LOSSES, *HARD), means, strict=True))
    print(json.dumps({"step": step, **told, "seconds": round(seconds)}), flush=True)


def save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, sharpness: float
) -> None:
    """Write the model in bfloat16 beside its tokenizer; training goes on in float32."""
    weights = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    weights["model.norm.weight"] *= sharpness
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def main(
    name: Annotated[
        str, typer.Argument(help="teacher, student; or a part of the teacher's: finish, misses")
    ],
    steps: Annotated[int | None, typer.Option(help=f"{STEPS}")] = None,
    rate: Annotated[float | None, typer.Option(help=f"the greatest learning rate: {RATES}")] = None,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="the folder of both models")] = MODELS,
) -> None:
    """Make one of the sandbox's models."""
    for part in PARTS.get(name, (name,)):
        with tempfile.TemporaryDirectory() as folder:
            how = steps or STEPS[part], rate or RATES[part], seed
            arguments = (part, *how, out, Path(folder) / "meet")
            spawn(train, arguments, nprocs=WORKERS)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    typer.run(main)
