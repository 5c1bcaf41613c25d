"""What the quickstart reaches on the sandbox, against what is wanted, for three constitutions.

    python scripts/bench_sandbox.py [--out runs/bench] [--seed 0] [--json FILE]

Runs the quickstart under each of the sandbox's constitutions and measures every trained student by
every constitution: the student that was trained under one must keep that one best.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from bench_rows import Row, row, show
from rich.console import Console
from rich.table import Table

from rlaif.constitution import Constitution
from rlaif.journal import Stage
from rlaif.pipeline import read_records
from rlaif.run_folder import RunFolder
from rlaif.sandbox import measure
from rlaif.sandbox.quickstart import HERE, quickstart
from rlaif.tables import SAMPLES

NAMES = ("concierge", "blunt", "warm")


def figures(summary: dict[str, Any]) -> list[Row]:
    """The wanted figures of one quickstart, and what it measured."""
    judge, gold, length = summary["judge"], summary["gold"], summary["mean_tokens"]
    decided = [row["dpo"] for row in gold["by_principle"].values() if row["dpo"] is not None]
    return [
        row("seconds in all", "<=", 180, sum(summary["seconds"].values())),
        row("judge accuracy", ">=", 0.95, judge["accuracy"]),
        row("judge, worst attribute", ">=", 0.90, min(judge["by_attribute"].values())),
        row("judge, held-out wordings", ">=", 0.85, judge["heldout_wording_accuracy"]),
        row("pairs confirmed by gold", ">=", 0.97, summary["pair_accuracy"]),
        row("gold, base", "<=", 0.60, gold["base"]),
        row("gold, after SFT", ">=", 0.75, gold["sft"]),
        row("gold, after DPO", ">=", 0.95, gold["dpo"]),
        row("gold, after DPO, worst principle", ">=", 0.90, min(decided)),
        row("length over the world's own, off by", "<=", 0.20,
             abs(length["dpo"] / length["gold"] - 1)),
        row("reward model accuracy", ">=", 0.90, summary["reward_model"]["accuracy"]),
    ]  # fmt: skip


def cross_table(out: Path) -> dict[str, dict[str, float]]:
    """Gold of the student trained under each constitution (row), by each constitution (column)."""
    constitutions = {n: Constitution.load(HERE / "constitutions" / f"{n}.yaml") for n in NAMES}
    table: dict[str, dict[str, float]] = {}
    for trained in NAMES:
        stage = Stage(RunFolder(out / trained), "evaluate/samples/dpo", SAMPLES)
        records = read_records(stage)
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
        rows += [found | {"name": f"{name}: {found['name']}"} for found in figures(summary)]
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
