"""Labels a second by five ways of judging the same questions, side by side and taking turns.

    python scripts/bench_label.py [--model FOLDER | --shape 3m] [--prompts 512] [--json FILE]

naive      a forward pass for each response and principle
unpacked   the transformers engine in padded batches, prefixes not shared
packed     the transformers engine, every shared prefix computed once
vllm-raw   a bare `LLM.generate` on token ids
vllm       the vllm engine

The work is 4 responses of 64 tokens to each prompt of 44 to 233 tokens, under 8 principles: 32
questions a prompt pointwise, 96 pairwise. The two that share nothing answer a share of them: a
rate needs no more.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import bench_work
import typer
from bench_ways import Job, Ways, has_vllm, median
from rich.console import Console
from rich.table import Table

NAMES = ("naive", "unpacked", "packed", "vllm-raw", "vllm")
_SHARE = 16  # the slow ways answer every 16th


def jobs(mode: str, prompts: int, names: tuple[str, ...]) -> dict[str, Job]:
    """What each way is asked to do."""
    made = {name: {"way": name, "do": "label", "mode": mode, "prompts": prompts} for name in names}
    if "naive" in made:
        made["naive"]["every"] = _SHARE
    if "unpacked" in made:
        made["unpacked"]["prompts"] = max(1, prompts // _SHARE)
    return made


def measure(ways: Ways, mode: str, prompts: int, rounds: int) -> list[dict[str, Any]]:
    """A row a way."""
    names = NAMES if has_vllm() else NAMES[:3]
    asked = jobs(mode, prompts, names)
    measured = ways.turns(asked, rounds)
    rows = []
    for name, job in asked.items():
        every = job.get("every", 1)
        facts = ways.run("expected", mode=mode, prompts=job["prompts"], every=every, block=32)
        labels = facts["questions"]
        seconds = median(measured[name])
        rows.append(
            {
                "name": name,
                "mode": mode,
                "labels": labels,
                "wall_seconds": seconds,
                "labels_per_second": labels / seconds,
                "tokens_processed": int(median(measured[name], "tokens")),
                "trie_floor": facts["floor"],
                "peak_rss_mib": measured[name][-1]["peak_rss_mib"],
            }
        )
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """The rows as a table."""
    table = Table(*rows[0], "tokens / floor")
    for row in rows:
        cells = [f"{v:,.1f}" if isinstance(v, float) else str(v) for v in row.values()]
        table.add_row(*cells, f"{row['tokens_processed'] / row['trie_floor']:.3f}")
    console.print(table)


def main(
    model: Annotated[Path | None, typer.Option(help="a model folder")] = None,
    shape: Annotated[str, typer.Option(help=", ".join(bench_work.SHAPES))] = "3m",
    prompts: int = 512,
    pairwise_prompts: Annotated[int, typer.Option(help="0 leaves it out")] = 64,
    rounds: int = 3,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure, print the table, and write it as JSON."""
    with tempfile.TemporaryDirectory() as made:
        ways = Ways(model or bench_work.make_model(shape, Path(made) / shape))
        rows = measure(ways, "pointwise", prompts, rounds)
        if pairwise_prompts:
            rows += measure(ways, "pairwise", pairwise_prompts, rounds)
        ways.end()
    show(rows, Console(width=160))
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
