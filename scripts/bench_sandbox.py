"""What the quickstart reaches on the sandbox, against what is wanted, for three constitutions.

    python scripts/bench_sandbox.py [--out runs/bench] [--seed 0] [--json FILE]

Runs the quickstart under each of the sandbox's constitutions and measures every trained student by
every constitution: the student that was trained under one must keep that one best.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from bench_rows import Row, row, show
from rich.console import Console
from rich.table import Table

from rlaif.constitution import Constitution
from rlaif.engines.load import load_engine
from rlaif.evaluate.rewards import reward_accuracy
from rlaif.journal import Stage
from rlaif.label.method import Method
from rlaif.label.rows import pair_schema
from rlaif.loop.figures import Figures
from rlaif.loop.places import LoopFolder
from rlaif.pipeline import evaluation_samples, read_records, train
from rlaif.recipe import Recipe
from rlaif.sandbox import measure
from rlaif.sandbox.quickstart import HERE, launch_file, multiplies_bfloat16, quickstart
from rlaif.tables import SAMPLES

NAMES = ("concierge", "blunt", "warm")
JUDGED = 300
"""Answers that the judge is measured on, seven questions each."""
REWARD = {
    "model_init_kwargs": {"attn_implementation": "eager"}, "max_steps": 190,
    "per_device_train_batch_size": 8, "learning_rate": 2e-3, "lr_scheduler_type": "cosine",
    "warmup_steps": 10, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-4,
    "max_length": 160, "train_sampling_strategy": "group_by_length", "bf16": multiplies_bfloat16(),
    "logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
}  # fmt: skip


def figures(out: Path, summary: dict[str, Any]) -> list[Row]:
    """The wanted figures of one quickstart, and what it measured."""
    folder = LoopFolder(out)
    constitution = Constitution.load(folder.run.constitution)
    base, *rounds = [Figures.from_dict(one) for one in (summary["base"], *summary["rounds"])]
    last = rounds[-1]
    assert base.metric is not None and last.metric is not None and last.mean_tokens is not None
    decided = last.metric_by_principle.values()
    judged = judge_figures(folder)
    return [
        row("seconds in all", "<=", 300, sum(summary["seconds"].values())),
        row("judge accuracy", ">=", 0.95, judged.mean),
        row("judge, worst attribute", ">=", 0.90, min(judged.by_attribute.values())),
        row("judge, held-out wordings", ">=", 0.85, judge_figures(folder, held_out=True).mean),
        row("pairs confirmed by gold", ">=", 0.97, pairs_confirmed(folder, constitution)),
        row("gold, before", "<=", 0.60, base.metric.value),
        row("gold, after SFT", ">=", 0.75, gold_after_sft(folder, constitution)),
        row("gold, after the last round", ">=", 0.95, last.metric.value),
        row("gold, after the last round, worst principle", ">=", 0.90, min(decided)),
        row("length over the world's own, off by", "<=", 0.20,
             abs(last.mean_tokens / summary["mean_tokens_gold"] - 1)),
        row("reward model accuracy", ">=", 0.90, reward_figure(folder, constitution)),
    ]  # fmt: skip


def judge_figures(folder: LoopFolder, held_out: bool = False) -> measure.Accuracy:
    """The teacher on answers of its world, in wordings that it has seen or has not."""
    recipe = Recipe.load(folder.run.recipe)
    with closing(load_engine(recipe.teacher)) as teacher:
        method = Method.load(recipe.judge)
        return measure.judge_accuracy(teacher, method, JUDGED, recipe.seed, held_out=held_out)


def pairs_confirmed(folder: LoopFolder, constitution: Constitution) -> float:
    """Share of the first round's pairs that gold confirms."""
    stage = Stage(folder.round(0), "pairs", pair_schema(False))
    rows = [r for shard in stage.shards() for r in stage.read(shard).to_pylist()]
    return measure.pair_accuracy(rows, constitution).confirmed


def gold_after_sft(folder: LoopFolder, constitution: Constitution) -> float:
    """Gold of the first round's SFT model, before DPO."""
    run = folder.round(0)
    recipe = Recipe.load(run.recipe)
    with run.lock():
        samples = evaluation_samples(run, recipe, "sft")
    return measure.compliance(read_records(samples), constitution)[0]


def reward_figure(folder: LoopFolder, constitution: Constitution) -> float:
    """A reward model trained on the first round's pairs: how often it ranks two answers right."""
    run = folder.round(0)
    recipe = yaml.safe_load(run.recipe.read_text("utf-8"))
    recipe["train"] |= {"reward": REWARD, "reward_pairs": {"limit": 3040}}
    file = run.root / "with_reward.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    train("reward", file, launch_file(), quiet=True)
    records = read_records(Stage(run, "evaluate/samples/base", SAMPLES))
    prompt_of = {r.prompt[-1].text: r.prompt for r in records}
    pairs = [
        (prompt_of[prompt], better, worse)
        for prompt, better, worse in measure.gold_pairs(records, constitution)
    ]
    return reward_accuracy(run.model("reward") / "final", pairs)


def cross_table(out: Path) -> dict[str, dict[str, float]]:
    """Gold of the student trained under each constitution (row), by each constitution (column)."""
    constitutions = {n: Constitution.load(HERE / "constitutions" / f"{n}.yaml") for n in NAMES}
    table: dict[str, dict[str, float]] = {}
    for trained in NAMES:
        last = LoopFolder(out / trained).round(1)
        records = read_records(Stage(last, "evaluate/samples/dpo", SAMPLES))
        table[trained] = {n: measure.compliance(records, c)[0] for n, c in constitutions.items()}
    return table


def best_of_row_and_column(table: dict[str, dict[str, float]], name: str) -> bool:
    """Whether a diagonal cell is the greatest of its row and of its column."""
    own = table[name][name]
    return own >= max(table[name].values()) and own >= max(row[name] for row in table.values())


def main(
    out: Path = Path("runs/bench"),
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Print the table, and write it as JSON."""
    rows: list[Row] = []
    for name in NAMES:
        summary = quickstart(
            out / name, constitution=HERE / "constitutions" / f"{name}.yaml", seed=seed, quiet=True
        )
        found = figures(out / name, summary)
        rows += [one | {"name": f"{name}: {one['name']}"} for one in found]
    table = cross_table(out)
    for name in NAMES:
        rows.append(row(f"{name}: own gold in the 3 × 3 table", ">=", 0.90, table[name][name]))
        best = best_of_row_and_column(table, name)
        rows.append(row(f"{name}: best of its row and column", ">=", 1, float(best)))
    console = Console()
    cross = Table("trained under", *(f"by {n}" for n in NAMES), title="gold after DPO")
    for name in NAMES:
        cross.add_row(name, *(f"{table[name][n]:.3f}" for n in NAMES))
    console.print(cross)
    show(rows, console)
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": rows, "table": table}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
