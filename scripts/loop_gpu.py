"""The recipe for one GPU, on a GPU: its memory, and what kills leave behind.

    python scripts/loop_gpu.py [--prompts 96] [--part training --part room …]

The models have the recipe's shapes and random weights: what they say is worth nothing, and what it
takes to sample, judge and train with them is what it takes with any. All that the GPU has beyond 24
GB is taken by another process before anything starts.

training  a few steps of each training, on rows of the greatest length that the recipe trains on
foreseen  what `rlaif estimate` says of a round in four shards, by its probe of every stage
room      one round, from its first prompt to its last figure
kills     the same with a checkpoint every other step, killed in every stage, beside two undisturbed
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from bench_rows import Row, note, row, show, write
from bench_work import SHAPES, make_model, prompts
from loop_kills_run import Killable, Moment
from rich.console import Console
from safetensors.torch import load_file

from rlaif import strict_yaml
from rlaif.label.rows import SFT_SCHEMA, pair_row, pair_schema, sft_row
from rlaif.loop.round_recipe import merged
from rlaif.loop.spending import read_cost, total
from rlaif.pipeline import train_command
from rlaif.recipe import Recipe
from rlaif.records import Message, Record, Response, record_id
from rlaif.run_folder import RunFolder

RECIPE = Path(__file__).parents[1] / "recipes" / "one-gpu-lora" / "recipe.yaml"
ROOM = 24_000_000_000
"""Bytes of a GPU with 24 GB."""
_TRAINED = ("sft", "dpo", "reward")
_MARKS = 8
"""At least half of the tokens that a chat template adds to a prompt and its answer."""
_LONG = 8
"""Times that a long prompt is as long as others."""
_KILLED = ("00-sample", "00-judge", "00-sft", "00-dpo", "00-reward", "00-evaluate")
# What a model of random weights cannot do: end an answer, be sure of yes or no, pass a gate. A word
# in three hundred has three sevens.
_RANDOM: dict[str, Any] = {
    "sample": {"stop": ["777"]},
    "judge": {"min_coverage": 0.0},
    "gate": {"on_failure": "warn"},
    "pick": {"min_margin": 0.0, "pair_margin": 0.0, "prefer_shorter_within": None},
    "loop": {"rounds": 1},
}


def write_recipe(
    folder: Path, models: Path, count: int, changes: Mapping[str, Any], shards: int = 1
) -> Path:
    """The shipped recipe with models, prompts and sizes of its own; its run is ``folder/run``."""
    shard = -(-count // shards)
    folder.mkdir(parents=True, exist_ok=True)
    asked = [
        # Now and then one that makes a row of the greatest length that is trained on.
        json.dumps({"prompt": " ".join([r.prompt[0].text] * (_LONG if i % 8 == 0 else 1))})
        for i, r in enumerate(prompts(count + count // 4))
    ]
    for name, lines in (("prompts", asked[:count]), ("held-out", asked[count:])):
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    shipped = Recipe.load(RECIPE).model_dump(mode="json")
    here = {"dataset": None, "config": None}
    quiet = {"report_to": "none", "disable_tqdm": True}
    own: dict[str, Any] = {
        "run": str(folder / "run"),
        "student": {"model": str(models / "student")},
        "teacher": {"model": str(models / "teacher")},
        "prompts": here | {
            "path": str(folder / "prompts.jsonl"), "limit": count, "shard_size": shard
        },
        "evaluate": {"prompts": here | {"path": str(folder / "held-out.jsonl")}},
        "train": dict.fromkeys(_TRAINED, quiet),
    }  # fmt: skip
    made = merged(merged(merged(shipped, _RANDOM), own), changes)
    file = folder / "recipe.yaml"
    file.write_text(strict_yaml.dump(made), encoding="utf-8")
    return file


@contextmanager
def only(room: int) -> Iterator[None]:
    """Leave a GPU no more free memory than `room` bytes, for as long as this lasts."""
    code = (
        "import sys, torch\n"
        "torch.zeros(1, device='cuda')\n"
        f"taken = torch.empty(max(0, torch.cuda.mem_get_info()[0] - {room}), dtype=torch.uint8, "
        "device='cuda')\n"
        "print('taken', flush=True)\nsys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        if not other.stdout.readline():
            raise SystemExit("the GPU's memory could not be taken")
        yield
    finally:
        other.stdin.close()
        other.wait()


def used() -> int:
    """Bytes of the first GPU that are in use, by anyone; asked of the driver, without a context."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(said.split()[0]) << 20


class Gauge:
    """The GPU's memory while stages are at work.

    Args:
        stage: says which is at work now.

    Attributes:
        peaks: most bytes in use at once beyond what was before, by stage.
    """

    def __init__(self, stage: Callable[[], str]) -> None:
        self.peaks: dict[str, int] = {}
        self._before, self._stage, self._ended = used(), stage, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Gauge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            stage, now = self._stage(), used() - self._before
            if now > self.peaks.get(stage, 0):
                self.peaks[stage] = now
                print(f"    {stage}: {now / 1e9:.1f} GB", file=sys.stderr, flush=True)

    def left(self, most: float = 10.0) -> tuple[int, float]:
        """Bytes still in use beyond what was before, and the seconds until there were none."""
        began = time.monotonic()
        while (now := used() - self._before) > 0 and time.monotonic() < began + most:
            time.sleep(0.05)
        return max(0, now), time.monotonic() - began


def rows_of_training(out: Path, models: Path, count: int) -> list[Row]:
    """Each training on the longest rows that there are, in 24 GB."""
    short = {"max_steps": 3, "save_strategy": "no"}
    changes = {"train": dict.fromkeys(_TRAINED, short)}
    recipe = write_recipe(out / "training", models, count, changes)
    _write_longest(Recipe.load(recipe))
    at_work = ""
    with only(ROOM), Gauge(lambda: at_work) as gauge:
        for at_work in _TRAINED:
            _run(train_command(at_work, recipe, None), recipe.parent / at_work)
    return [
        row(f"{stage}, rows of the greatest length, in 24 GB: most GPU memory, GB", "<=",
            ROOM / 1e9, most / 1e9)
        for stage, most in gauge.peaks.items()
    ]  # fmt: skip


def _write_longest(recipe: Recipe) -> None:
    """Picks and pairs that all but fill the greatest length that is trained on."""
    run = RunFolder(Path(recipe.run)).create()
    assert recipe.train.dpo is not None
    words = int(recipe.train.dpo["max_length"]) // 2 - _MARKS
    rng = random.Random("longest")
    say = partial(rng.choices, [f"w{i}" for i in range(1000)])
    records = []
    for _ in range(128):
        chat = (Message("user", " ".join(say(k=words))),)
        said = tuple(Response(" ".join(say(k=words)), words, "stop") for _ in range(2))
        records.append(Record(record_id(chat), chat, said))
    origin = {"constitution": "", "judge": ""}
    for stage, schema, rows in (
        ("sft", SFT_SCHEMA, [sft_row(r, 0, 1.0, 1.0) for r in records]),
        ("pairs", pair_schema(False), [pair_row(r, 0, 1, 1.0, 0.0) for r in records]),
    ):
        run.data(stage).mkdir(parents=True)
        table = pa.Table.from_pylist([r | origin for r in rows], schema=schema)
        pq.write_table(table, run.data(stage) / "00000.parquet")


def rows_of_room(out: Path, models: Path, count: int) -> list[Row]:
    """One round in 24 GB."""
    recipe = write_recipe(out / "room", models, count, {})
    log = out / "room" / "printed"

    def at_work() -> str:
        lines = log.read_text().splitlines() if log.is_file() else []
        begun = [one.partition(":")[0] for one in lines if one.endswith(": started")]
        return begun[-1] if begun else "the check"

    with only(ROOM), Gauge(at_work) as gauge:
        _run([sys.executable, "-m", "rlaif.cli", "loop", str(recipe)], log)
        left, _ = gauge.left()
    spent = read_cost(Path(Recipe.load(recipe).run) / "cost.jsonl")
    stages = dict.fromkeys(line["stage"] for line in spent)
    costs = {s: total([line for line in spent if line["stage"] == s]) for s in stages}
    return [
        row("one round in 24 GB: most GPU memory at once, GB", "<=", ROOM / 1e9,
            max(gauge.peaks.values()) / 1e9),
        row("one round: GPU memory in use when it has ended, MB", "<=", 0, left / 1e6),
        *(note(f"{stage}: most GPU memory, GB", most / 1e9)
          for stage, most in gauge.peaks.items()),
        *(note(f"{stage}: seconds", cost.seconds) for stage, cost in costs.items()),
        *(note(f"{stage}: tokens a second", cost.tokens / cost.seconds)
          for stage, cost in costs.items() if cost.tokens),
    ]  # fmt: skip


def rows_of_foreseen(out: Path, models: Path, count: int) -> list[Row]:
    """An estimate in 24 GB, whose probe runs every stage."""
    recipe = write_recipe(out / "foreseen", models, count, {}, shards=4)
    with only(ROOM):
        _run([sys.executable, "-m", "rlaif.cli", "estimate", str(recipe)], out / "foreseen/printed")
    told = json.loads((Path(Recipe.load(recipe).run) / "estimate.json").read_text())["rows"]
    return [note(f"{one['stage']}: seconds foreseen", one["seconds"]) for one in told] + [
        note(f"{one['stage']}: tokens a second foreseen", one["generated_tokens"] / one["seconds"])
        for one in told
        if one["stage"] == "sample"
    ]


def _run(command: Sequence[str], log: Path) -> None:
    with log.open("w") as printed:
        status = subprocess.run(command, stdout=printed, stderr=subprocess.STDOUT).returncode
    if status:
        print(log.read_text()[-6000:], file=sys.stderr)
        for said in sorted(log.parent.glob("run/said/*")):
            print(f"== {said}\n{said.read_text()[-2000:]}", file=sys.stderr)
        raise SystemExit(f"{' '.join(command)} ended with exit status {status}")


def rows_of_kills(out: Path, models: Path, count: int) -> list[Row]:
    """A loop that is killed in every stage, beside two that are not."""
    steps = {"max_steps": 8, "save_steps": 2, "gradient_accumulation_steps": 1}
    changes = {"train": dict.fromkeys(_TRAINED, steps)}
    loops = [
        Killable(write_recipe(out / name, models, count, changes, 4)) for name in ("one", "other")
    ]
    for loop in loops:
        loop.run([])
        if not loop.finished:
            raise SystemExit(f"an undisturbed loop did not finish: {loop.printed}")
    middle = {stage: (end - start) / 2 for stage, start, end in loops[0].timeline}
    moments = [Moment(s, middle[s], whole=i % 2 == 0) for i, s in enumerate(_KILLED)]
    killed = Killable(write_recipe(out / "killed", models, count, changes, 4))
    gauge = Gauge(str)
    killed.run(moments)
    left, _ = gauge.left()
    one, other = loops
    return [
        row("kills on the GPU, one a stage", ">=", len(_KILLED), killed.kills),
        row("killed: it finished", ">=", 1, float(killed.finished)),
        row("killed: a finished shard, or a step before the last checkpoint, done again", "<=", 0,
            killed.seen.done_again),
        row("killed: processes left 10 s after a kill", "<=", 0, killed.seen.processes_left),
        row("killed: GPU memory in use after it, MB", "<=", 0, left / 1e6),
        note("two undisturbed: the same labels", float(one.labels() == other.labels())),
        note("killed and undisturbed: the same labels", float(one.labels() == killed.labels())),
        note("two undisturbed: weights differ by at most", apart(one, other)),
        note("killed and undisturbed: weights differ by at most", apart(one, killed)),
        note("longest until no process was left after a kill, s", killed.seen.longest_end),
    ]  # fmt: skip


def apart(one: Killable, other: Killable) -> float:
    """The largest difference of any final weight of two loops; NaN where the files are others."""
    files = [sorted(k.folder.glob("rounds/*/models/*/final/*.safetensors")) for k in (one, other)]
    if [f.relative_to(one.folder) for f in files[0]] != [
        f.relative_to(other.folder) for f in files[1]
    ]:
        return float("nan")
    found = 0.0
    for a, b in zip(*files, strict=True):
        here, there = load_file(a), load_file(b)
        gaps = ((here[name].float() - there[name].float()).abs().max().item() for name in here)
        found = max(found, *gaps)
    return found


def main(
    out: Path = Path("runs/loop-gpu"),
    count: Annotated[int, typer.Option("--prompts")] = 96,
    student: Annotated[str, typer.Option(help="a shape of bench_work.py")] = "qwen3-0.6b",
    teacher: Annotated[str, typer.Option(help="likewise")] = "qwen3-4b",
    part: Annotated[
        list[str] | None, typer.Option(help="training, foreseen, room, kills; or all")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Make the models, run the parts, print the table, and write it as JSON."""
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here")
    out = out.absolute()
    models = out / "models"
    parts = {
        "training": rows_of_training, "foreseen": rows_of_foreseen,
        "room": rows_of_room, "kills": rows_of_kills,
    }  # fmt: skip
    for name, shape in (("student", student), ("teacher", teacher)):
        make_model(shape, models / name, words=SHAPES[shape]().vocab_size, device="cuda")
    torch.cuda.empty_cache()
    found: list[Row] = []
    for name in part or parts:
        found += parts[name](out, models, count)
        if json_file is not None:
            write(found, json_file)
    show(found, Console(width=120))
    print(torch.cuda.get_device_name())


if __name__ == "__main__":
    typer.run(main)
