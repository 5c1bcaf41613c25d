"""Make the sandbox's writer from its teacher: `python scripts/make_sandbox_writer.py`.

The teacher is a judge: of what it was taught, one lesson in two hundred asks for a prompt, and it
writes prompts that have nothing to do with the examples it is shown. The writer is a low-rank
adapter (Hu et al. 2021, arXiv 2106.09685) on the teacher that has been taught this one form; the
teacher itself, and with it every judgement, stays as it is.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from peft import LoraConfig, PeftModel, get_peft_model
from sandbox_batches import Batch, batches
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, LlamaForCausalLM

from rlaif.sandbox import lessons
from rlaif.sandbox.quickstart import multiplies_bfloat16

MODELS = Path(__file__).parent.parent / "rlaif" / "sandbox" / "models"
ROWS = 8
RANK = 16
EVERY_MATRIX = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(teacher: Path) -> PeftModel:
    """The teacher in float32, with an adapter that changes nothing yet."""
    base = LlamaForCausalLM.from_pretrained(teacher, dtype=torch.float32, use_safetensors=True)
    config = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=EVERY_MATRIX, task_type="CAUSAL_LM"
    )
    model: PeftModel = get_peft_model(base, config)
    return model


def lesson_batches(teacher: Path, steps: int, seed: int) -> Iterator[Batch]:
    """Rows of lessons in writing a prompt, and of nothing else."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    chance = random.Random(f"writer {seed}")
    return batches(tokenizer, lambda rng, _: lessons.new_prompt(rng), range(steps), ROWS, chance)


def loss_of(model: PeftModel, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy, in nats, of the tokens that the assistant says."""
    llama = model.get_base_model()
    hidden = llama.model(
        input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask,
        use_cache=False,
    ).last_hidden_state.flatten(0, 1)  # fmt: skip
    logits = llama.lm_head(hidden[batch.at[batch.said]])
    return cross_entropy(logits.float(), batch.targets[batch.said])


def save(model: PeftModel, folder: Path) -> None:
    """The adapter alone, in bfloat16; it says where the teacher lies beside it."""
    model.peft_config["default"].base_model_name_or_path = "../teacher"
    model.to(torch.bfloat16).save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a model card that says nothing


def main(
    steps: Annotated[int, typer.Option(help="of 8 rows of 256 tokens")] = 400,
    rate: Annotated[float, typer.Option(help="the greatest learning rate")] = 3e-3,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="the adapter's folder")] = MODELS / "writer",
) -> None:
    """Train on one thread, so that the adapter follows from the seed: four minutes or so."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = adapted(MODELS / "teacher")
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.05, anneal_strategy="cos"
    )
    for step, batch in enumerate(lesson_batches(MODELS / "teacher", steps, seed), start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(json.dumps({"step": step, "loss": round(loss.item(), 4)}), flush=True)
    save(model, out)


if __name__ == "__main__":
    typer.run(main)
