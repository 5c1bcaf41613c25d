"""Labels a number of records with an engine that only looks like one: time and memory, as JSON.

    python scripts/bench_records.py 100000

Prompts, samples, verdicts and picks go through the durable stages in shards of 256, as in a run.
No torch is loaded and no model is run, so that what is held grows visibly if the records are what
is held. bench_engines.py starts this, a process a size: a peak does not go down again.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif import stages
from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Generation, Label, LabelScore, Sampling, Usage
from rlaif.label.method import Method
from rlaif.label.templates import load_template
from rlaif.recipe import Model, Prompts, Recipe
from rlaif.records import Chat, Response
from rlaif.run_folder import RunFolder

SHARD_SIZE = 256
RESPONSES = 2
PRINCIPLES = 2
_WORDS = " ".join(random.Random("words").choices([f"w{i}" for i in range(1950)], k=20_000))
_PROMPT_CHARS, _RESPONSE_CHARS = 700, 1280


def _text(rng: random.Random, chars: int) -> str:
    start = rng.randrange(len(_WORDS) - chars)
    return _WORDS[start : start + chars]


class StandIn:
    """Says random words and judges at random; remembers nothing."""

    identity: Mapping[str, str] = {"engine": "stand-in", "model": "stand-in"}

    def __init__(self) -> None:
        self.usage = Usage()
        self._rng = random.Random("engine")

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """Responses of about 210 words."""
        return [
            Generation(
                tuple(
                    Response(_text(self._rng, _RESPONSE_CHARS), 210, "stop")
                    for _ in range(sampling.n)
                )
            )
            for _ in chats
        ]

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """Most of the mass on a label each."""
        return [LabelScore((-self._rng.random(), -1 - self._rng.random())) for _ in chats]

    def close(self) -> None:
        """Holds nothing."""


def write_prompts(count: int, file: Path) -> None:
    """Prompts of about 120 words, one at a time: not even these are held."""
    rng = random.Random("prompts")
    with file.open("w") as out:
        for number in range(count):
            out.write(json.dumps({"prompt": f"{number} {_text(rng, _PROMPT_CHARS)}"}) + "\n")


def label(count: int, folder: Path) -> dict[str, Any]:
    """What it took: seconds a stage, peak MiB, and the MiB that all records would take at once."""
    write_prompts(count, folder / "prompts.jsonl")
    (folder / "rules.yaml").write_text("")
    rules = Constitution(
        name="two",
        principles=tuple(Principle(id=f"p{i}", text=f"Be {i}.") for i in range(PRINCIPLES)),
    )
    source = Prompts(path=str(folder / "prompts.jsonl"), shard_size=SHARD_SIZE)
    model = Model(model="stand-in")
    recipe = Recipe(run=str(folder / "run"), constitution=folder / "rules.yaml", student=model,
                    teacher=model, prompts=source)  # fmt: skip
    run, engine = RunFolder(folder / "run").create(), StandIn()
    method = Method("pointwise", load_template("pointwise"))
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = work()
        seconds[name] = round(time.perf_counter() - start, 1)
        return made

    prompts = timed("prompts", lambda: stages.store_prompts(run, "prompts", source))
    samples = timed(
        "samples",
        lambda: stages.store_samples(run, "samples", prompts, engine, Sampling(n=RESPONSES), 0),
    )
    verdicts = timed(
        "verdicts",
        lambda: stages.store_verdicts(run, "verdicts", samples, engine, rules.principles, method),
    )
    timed("picks", lambda: stages.store_picks(run, recipe, rules, "stand-in", samples, verdicts))
    peak = _peak()
    tracemalloc.start()
    shard = stages.judged_records(samples, verdicts, 0)
    held = tracemalloc.get_traced_memory()[0] / 2**20 / len(shard) * count
    return {"records": count, "seconds": seconds, "peak_rss_mib": peak, "records_mib": held}


def _peak() -> float:
    """The most MiB held so far; `ru_maxrss` would count what the parent held at the fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(label(int(sys.argv[1]), Path(folder))))


if __name__ == "__main__":
    main()
