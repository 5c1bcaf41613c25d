"""Gap filling: prompts on a few topics, and a model that writes the others'.

python scripts/filters_gaps.py [--small] [--json FILE]

The anchors are advice of the sandbox's pretraining split, over all its topics; the prompts are of
its label split, and nearly all about a few of them. Two generators are asked: the sandbox's
teacher as it is, which has hardly been taught to look at the examples it is shown, and the writer,
its adapter that has.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import typer
from bench_rows import Row, note, row, show, write
from numpy.typing import NDArray
from rich.console import Console
from trust_noise import TEACHER

from rlaif.cells import Cells, fit_cells
from rlaif.embed import Embedder
from rlaif.engines.load import load_engine
from rlaif.engines.protocol import Engine, Sampling
from rlaif.entropy import entropy, evenness
from rlaif.prompts.gaps import Filled, Filling, fill_gaps
from rlaif.recipe import Model
from rlaif.sandbox.prompts import parse, prompts

WRITER = TEACHER.parent / "writer"
EVENNESS = 0.60
"""Of the prompts that are planted."""
SAMPLING = Sampling(temperature=0.7, max_tokens=40)
NEAR_COPY = 0.98
"""The world's sentences are few: half of its prompts have another at a cosine of 0.92."""


class World(NamedTuple):
    """What there is before anything is written."""

    anchors: list[str]
    planted: list[str]
    cells: Cells


def rows(small: bool) -> list[Row]:
    """All rows of this file."""
    embed = Embedder()
    there = world(embed, *((400, 120, 16) if small else (800, 400, 24)))
    settings = Filling(sampling=SAMPLING, near_copy=NEAR_COPY, calls=1500 if small else 12_000)
    made: list[Row] = []
    for name, adapter in (("teacher", None), ("writer", WRITER)):
        with generator(adapter) as engine:
            begun = time.perf_counter()
            filled = fill_gaps(
                there.planted, there.anchors, engine, embed, settings, 0, there.cells
            )
            made += told(name, filled, there, time.perf_counter() - begun)
    return made


@contextmanager
def generator(adapter: Path | None) -> Iterator[Engine]:
    """The sandbox's teacher, as it is or with an adapter."""
    engine = load_engine(Model(model=str(TEACHER), adapter=adapter))
    try:
        yield engine
    finally:
        engine.close()


def world(embed: Embedder, anchors: int, planted: int, cells: int) -> World:
    """Anchors over all topics, and prompts over a few, as even as `EVENNESS`."""
    gold = prompts(anchors, "pretrain", 0, ("advice",))
    regions = fit_cells(embed(gold).vectors, cells)
    pool = prompts(2000, "label", 0, ("advice",))
    place = regions.of(embed(pool).vectors)
    supply = np.argsort(-np.bincount(place, minlength=cells), kind="stable")
    wanted = dict(zip(supply.tolist(), steep(cells, planted), strict=True))
    taken: Counter[int] = Counter()
    chosen = []
    for text, cell in zip(pool, place.tolist(), strict=True):
        if taken[cell] < wanted[cell]:
            taken[cell] += 1
            chosen.append(text)
    return World(gold, chosen, regions)


def steep(cells: int, n: int) -> NDArray[np.int64]:
    """About n rows over cells, each cell a fixed share of the one before, as even as `EVENNESS`."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        even = entropy(_falling(middle, cells, n)) / math.log(cells)
        low, high = (middle, high) if even < EVENNESS else (low, middle)
    return _falling(low, cells, n)


def _falling(ratio: float, cells: int, n: int) -> NDArray[np.int64]:
    weights = np.power(ratio, np.arange(cells, dtype=np.float64))
    return np.asarray(np.rint(n * weights / weights.sum()), np.int64)


def told(name: str, filled: Filled, there: World, seconds: float) -> list[Row]:
    """The rows of one generator."""
    before, after = filled.rounds[0].evenness, evenness(filled.counts)
    written = max(1, filled.calls)
    right = [one.cell == one.asked for one in filled.new]
    reasons = Counter(drop.reason for drop in filled.drops)
    return [
        note(f"{name}: topic entropy planted", before.plain),
        row(f"{name}: topic entropy filled", ">=", 0.95, after.plain),
        note(f"{name}: … corrected for the sample's size", after.value),
        row(
            f"{name}: regions of the anchors with a prompt, of {len(there.cells)}", ">=",
            len(there.cells), int((filled.counts > 0).sum()),
        ),
        note(f"{name}: prompts planted", len(there.planted)),
        note(f"{name}: prompts written and kept", len(filled.new)),
        note(f"{name}: questions asked", filled.calls),
        note(f"{name}: rounds", len(filled.rounds) - 1),
        note(f"{name}: kept of all asked", len(filled.new) / written),
        note(f"{name}: kept ones that landed in the gap asked about", mean(right)),
        note(
            f"{name}: kept ones that are prompts of the world, word for word",
            mean([parse(one.text) is not None for one in filled.new]),
        ),
        *(note(f"{name}: dropped, {why}", n / written) for why, n in reasons.most_common()),
        note(f"{name}: seconds", seconds),
    ]  # fmt: skip


def mean(values: Sequence[bool]) -> float:
    """The share of true values; NaN without any."""
    return float(np.mean(values)) if values else math.nan


def main(small: bool = False, json: Path | None = None) -> None:
    """Measure, and print the table."""
    made = rows(small)
    show(made, Console(width=120))
    if json:
        write(made, json)


if __name__ == "__main__":
    typer.run(main)
