"""What soft labels gain where labels are wrong: DPO on pairs that were flipped at known rates.

    python scripts/bench_soft_labels.py RUN [--out DIR] [--seeds 1] [--steps 450] [--json FILE]

RUN is a finished quickstart, of which the first round is taken, or that round's own folder. Its
sampled responses are paired by exact gold, then each pair is turned round with a known probability:
10, 20, 30 or 40 %, or one of these at random for each pair. DPO then trains on the same pairs
twice: as if every label were certain, and with each label's probability of being right. It goes
over the pairs many times: what hurts is a wrong label that is learned by heart.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from rlaif import pipeline
from rlaif.constitution import Constitution
from rlaif.errors import DataError
from rlaif.journal import Stage
from rlaif.label.rows import pair_row, pair_schema
from rlaif.recipe import Recipe
from rlaif.records import Record
from rlaif.run_folder import RunFolder
from rlaif.sandbox import measure
from rlaif.sandbox.quickstart import launch_file
from rlaif.tables import SAMPLES

RATES = {"10 %": (0.1,), "20 %": (0.2,), "30 %": (0.3,), "40 %": (0.4,),
         "mixed": (0.1, 0.2, 0.3, 0.4)}  # fmt: skip


def first_round(run: Path) -> Path:
    """The run folder with a quickstart's first samples and the model that SFT made of them.

    Args:
        run: the quickstart's folder, or the first round's.

    Raises:
        DataError: neither holds both.
    """
    for folder in (run / "rounds" / "00", run):
        samples = Stage(RunFolder(folder), "samples", SAMPLES).shards()
        if samples and (RunFolder(folder).model("sft") / "final").is_dir():
            return folder
    raise DataError(
        "has no samples, or no SFT model", file=run, mend="name a finished scripts/quickstart"
    )


def flipped_pairs(
    records: list[Record], constitution: Constitution, rates: tuple[float, ...], seed: int
) -> list[dict[str, Any]]:
    """Gold's best against its worst response of each prompt, some the wrong way round.

    Args:
        records: sampled responses.
        constitution: whose principles decide.
        rates: each pair's flip rate is one of these, at random.
        seed: of the rates and the flips; equal draws for equal seeds.

    Returns:
        Rows of preference pairs whose `chosen_probability` is one minus the pair's flip rate.
    """
    rng, rows = random.Random(f"flips {seed}"), []
    for record in records:
        rate, draw = rng.choice(rates), rng.random()
        ends = measure.best_and_worst(record, constitution)
        if ends is None:
            continue
        chosen, rejected = ends if draw >= rate else ends[::-1]
        row = pair_row(record, chosen, rejected, margin=1.0, concession=0.0)
        rows.append(row | {"chosen_probability": 1 - rate, "judge": "gold, flipped",
                           "constitution": constitution.fingerprint})  # fmt: skip
    return rows


def trained_gold(
    run: Path, to: Path, rows: list[dict[str, Any]], *, soft: bool, steps: int
) -> float:
    """Gold of a student that DPO has trained on these pairs, from the run's SFT model."""
    ignored = shutil.ignore_patterns("dpo", "dpo*", "reward*", "pairs", "lock*")
    shutil.copytree(run, to, ignore=ignored, dirs_exist_ok=True)
    recipe = Recipe.load(run / "recipe.yaml")
    dpo = (recipe.train.dpo or {}) | {"max_steps": steps}
    train = recipe.train.model_copy(update={"soft_labels": soft, "dpo": dpo})
    recipe = recipe.model_copy(update={"run": str(to), "train": train})
    recipe.save(to / "recipe.yaml")
    folder = to / "data" / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=pair_schema(False)), folder / "0.parquet")
    pipeline.train("dpo", to / "recipe.yaml", launch_file(), quiet=True)
    with RunFolder(to).lock():
        samples = pipeline.evaluation_samples(RunFolder(to), recipe, "dpo")
    constitution = Constitution.load(recipe.constitution)
    return measure.compliance(pipeline.read_records(samples), constitution)[0]


def main(
    run: Annotated[Path, typer.Argument(help="a finished quickstart, or its first round")],
    out: Path = Path("runs/soft-labels"),
    seeds: Annotated[int, typer.Option(help="how many draws of flips")] = 1,
    steps: Annotated[int, typer.Option(help="DPO steps")] = 450,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Print gold after DPO with certain and with soft labels, at each flip rate."""
    try:
        run = first_round(run)
    except DataError as error:
        sys.exit(f"bench_soft_labels: {error}")
    recipe = Recipe.load(run / "recipe.yaml")
    constitution = Constitution.load(recipe.constitution)
    records = pipeline.read_records(Stage(RunFolder(run), "samples", SAMPLES))
    figures: dict[str, tuple[int, float, float]] = {}
    for name, rates in track(RATES.items(), "training"):
        gold: dict[bool, list[float]] = {False: [], True: []}
        for seed in range(seeds):
            rows = flipped_pairs(records, constitution, rates, seed)
            for soft, found in gold.items():
                kind = "soft" if soft else "certain"
                to = out / f"{name.split()[0]}-{kind}-{seed}"
                found.append(trained_gold(run, to, rows, soft=soft, steps=steps))
        certain, soft_ = (sum(found) / len(found) for found in gold.values())
        figures[name] = len(rows), certain, soft_
    table = Table("flipped", "pairs", "certain labels", "soft labels", "gain", title="gold")
    for name, (pairs, certain, soft_) in figures.items():
        gain = f"{soft_ - certain:+.3f}"
        table.add_row(name, str(pairs), f"{certain:.3f}", f"{soft_:.3f}", gain)
    Console().print(table)
    if json_file is not None:
        rows_ = [dict(zip(("flipped", "pairs", "certain", "soft"), (n, *f), strict=True))
                 for n, f in figures.items()]  # fmt: skip
        json_file.write_text(json.dumps(rows_, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
