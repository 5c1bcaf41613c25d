"""What the engines reach, against what is wanted: each row a ratio within one run.

    python scripts/bench_engines.py [--model FOLDER | --shape 3m] [--prompts 512] [--json FILE]

Prints a table (name, wanted, measured, holds). Rows that need vLLM or a GPU are left out where
there is none; that of distilabel says how to install it. bench_work.py says what the work is,
bench_way.py what each way does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import bench_work
import typer
from bench_rows import Row, row, show, unmeasured, write
from bench_ways import HERE, VLLM_PYTHON, Job, Ways, has_distilabel, has_vllm, median
from rich.console import Console

_PASS_TOKENS = 4096
_NAIVE_SHARE = 32
_MAX_TOKENS = 64
_DISTILABEL_PROMPTS = 128


def judging(ways: Ways, prompts: int, rounds: int) -> list[Row]:
    """In-process judging against its floor, a naive loop, and a dense batch."""
    label = {"do": "label", "mode": "pointwise", "prompts": prompts}
    facts = ways.run("expected", mode="pointwise", prompts=prompts, block=32)
    jobs: dict[str, Job] = {
        "packed": {"way": "packed", **label},
        "naive": {"way": "naive", "every": _NAIVE_SHARE, **label},
        "dense": {
            "way": "dense",
            "passes": -(-facts["floor"] // _PASS_TOKENS),
            "pass_tokens": _PASS_TOKENS,
            **label,
        },
    }
    found = ways.turns(jobs, rounds)
    seconds = median(found["packed"])
    naive = facts["questions"] / _NAIVE_SHARE / median(found["naive"])
    dense = median(found["dense"], "tokens") / median(found["dense"])
    over_floor = median(found["packed"], "tokens") / facts["floor"]
    return [
        row("judging: tokens ÷ trie floor", "<=", 1.05, over_floor),
        row("judging: labels a second ÷ naive", ">=", 6, facts["questions"] / seconds / naive),
        row("judging: floor tokens a second ÷ dense", ">=", 0.75, facts["floor"] / seconds / dense),
        row("judging: labels that differ from naive", "<=", 0, _differing(ways, prompts)),
    ]


def _differing(ways: Ways, prompts: int) -> int:
    """Decided labels (log-odds beyond the noise of bfloat16) of opposite sign."""
    job = {"do": "label", "mode": "pointwise", "prompts": min(prompts, 32), "every": 1}
    packed = ways.run("packed", keep=True, **job)["log_odds"]
    alone = ways.run("naive", **job)["log_odds"]
    return sum(a * b < 0 and min(abs(a), abs(b)) > 0.05 for a, b in zip(packed, alone, strict=True))


def sampling(ways: Ways, prompts: int, rounds: int) -> list[Row]:
    """In-process sampling against the library's `generate`."""
    job = {"do": "sample", "prompts": prompts, "max_tokens": _MAX_TOKENS}
    jobs: dict[str, Job] = {name: {"way": name, **job} for name in ("packed", "generate")}
    jobs["generate"]["prompts"] = max(16, prompts // 4)  # a rate needs no more
    found = ways.turns(jobs, rounds)
    ours, theirs = (median(found[n], "generated") / median(found[n]) for n in jobs)
    return [row("sampling: tokens a second ÷ generate", ">=", 1.5, ours / theirs)]


def vllm(ways: Ways, prompts: int, rounds: int) -> list[Row]:
    """The vllm engine against a bare `LLM.generate`."""
    rows = []
    facts = ways.run("expected", mode="pointwise", prompts=prompts, block=32)
    for do in ("label", "sample"):
        job = {"do": do, "mode": "pointwise", "prompts": prompts, "max_tokens": _MAX_TOKENS}
        found = ways.turns({n: {"way": n, **job} for n in ("vllm", "vllm-raw")}, rounds)
        ratio = median(found["vllm-raw"]) / median(found["vllm"])
        rows.append(row(f"vllm, {do}: throughput ÷ a bare call", ">=", 0.95, ratio))
        if do == "label":
            off = abs(median(found["vllm"], "tokens") / facts["computed"] - 1)
            rows.append(row("vllm: computed tokens off what a cache allows", "<=", 0.01, off))
    return rows


def whole(ways: Ways, prompts: int, rounds: int) -> list[Row]:
    """Sampling, judging and writing the pairs, durably, against a plain vLLM script."""
    with tempfile.TemporaryDirectory() as folder:
        jobs: dict[str, Job] = {
            "ours": {"way": "packed whole", "prompts": prompts},
            "raw": {"way": "vllm-raw whole", "prompts": prompts, "file": f"{folder}/pairs.jsonl"},
        }
        found = ways.turns(jobs, rounds)
    ratio = median(found["raw"]) / median(found["ours"])
    return [row("whole work ÷ a plain vLLM script", ">=", 1.1, ratio)]


def distilabel(ways: Ways, prompts: int, rounds: int) -> list[Row]:
    """The same against distilabel's pipeline on a vLLM server, which not everybody installs."""
    name = f"whole work of {prompts} prompts ÷ distilabel 1.5.3"
    if not has_distilabel():
        needs = "scripts/install-distilabel"
        if not VLLM_PYTHON.exists():
            needs = f"scripts/install-vllm and {needs}"
        return [unmeasured(name, ">=", 2.4, needs)]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work.json"
        work.write_text(json.dumps(_plain_work(prompts)))
        theirs = {"work": str(work), "file": f"{folder}/pairs.jsonl", "prompts": prompts}
        jobs: dict[str, Job] = {
            "ours": {"way": "packed whole", "prompts": prompts},
            "distilabel": {"way": "distilabel", **theirs},
        }
        found = ways.turns(jobs, rounds)
    ratio = median(found["distilabel"]) / median(found["ours"])
    return [row(name, ">=", 2.4, ratio)]


def _plain_work(prompts: int) -> Job:
    """The work as what does not import this package can read it."""
    return {
        "prompts": [record.prompt[0].text for record in bench_work.prompts(prompts)],
        "principles": [p.text for p in bench_work.constitution().principles],
        "responses": bench_work.RESPONSES,
        "response_tokens": bench_work.RESPONSE_TOKENS,
    }


def memory(model: Path) -> list[Row]:
    """Peak memory of labelling 16 times the records, over that of one shard of them."""
    peaks = []
    for prompts in (64, 256, 1024):
        ways = Ways(model)  # a process of its own: a peak does not go down again
        done = ways.run("packed whole", prompts=prompts, shard_size=64)
        peaks.append(done["peak_rss_mib"])
        ways.end()
    name = f"peak memory of 1, 4 and 16 times the records ({peaks} MiB): last ÷ first"
    return [row(name, "<=", 1.2, peaks[-1] / peaks[0])]


def durable(sizes: Sequence[int] = (256, 10_000, 100_000)) -> list[Row]:
    """Peak memory of the durable stages over the number of records, without a model in the way."""
    done = [_records(size) for size in sizes]
    peaks, held = [round(d["peak_rss_mib"]) for d in done], round(done[-1]["records_mib"])
    counts = ", ".join(f"{size:,}" for size in sizes)
    name = f"peak memory of {counts} records ({peaks} MiB; all are {held} MiB): last ÷ first"
    return [row(name, "<=", 1.3, done[-1]["peak_rss_mib"] / done[0]["peak_rss_mib"])]


def _records(count: int) -> Job:
    """What bench_records.py says, in a process of its own: a peak does not go down again."""
    command = [sys.executable, str(HERE / "bench_records.py"), str(count)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: Job = json.loads(said)
    return measured


def main(
    model: Annotated[Path | None, typer.Option(help="a model folder")] = None,
    shape: Annotated[str, typer.Option(help=", ".join(bench_work.SHAPES))] = "3m",
    prompts: int = 512,
    rounds: int = 3,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure, print the table, and write it as JSON."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as made:
        folder = model or bench_work.make_model(shape, Path(made) / shape)
        ways = Ways(folder)
        rows += judging(ways, prompts, rounds) + sampling(ways, prompts, rounds)
        ways.end("naive")
        if has_vllm():
            rows += vllm(ways, prompts, rounds)
            ways.end("vllm")
            rows += whole(ways, prompts, rounds)
            ways.end("vllm-raw")
        rows += distilabel(ways, min(prompts, _DISTILABEL_PROMPTS), rounds)
        ways.end()
        rows += memory(folder)
        rows += durable()
    show(rows, Console(width=120))
    if json_file is not None:
        write(rows, json_file)


if __name__ == "__main__":
    typer.run(main)
