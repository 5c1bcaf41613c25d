"""Drift and pruning: false alarms of human against human, and what planted topics do.

python scripts/filters_drift.py [--small] [--json FILE] [--cache FOLDER]
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from bench_rows import Row, note, row, show, write
from drift_world import Rows, World, make_world
from rich.console import Console

from rlaif.filters.drift import Drift, measure_drift
from rlaif.filters.drift_mauve import mauve
from rlaif.filters.drift_prune import Pruned, prune
from rlaif.intervals import rate

_N = 1000
_SHARES = (0.02, 0.05, 0.2)
_FAST = 200  # relabellings where thousands of tests are run; the level is the same


def rows(small: bool = False, cache: Path | None = None) -> list[Row]:
    """All rows of this file.

    Args:
        small: fewer trials and no large samples, for a look.
        cache: a folder that keeps the embeddings.
    """
    world = make_world(2500 if small else 10_500, 200, cache)
    sizes, trials = ((200, 1000), 40) if small else ((200, 1000, 5000), 400)
    made = [row_ for n in sizes for row_ in false_alarms(world, n, trials)]
    made += found(world, trials // 2) + power(world, trials // 4)
    return made + pruned(world, trials // 8) + overlap(world, 2 * _N) + speed(world, sizes[-1])


def false_alarms(world: World, n: int, trials: int) -> list[Row]:
    """Humans against other humans; of large samples with n-grams, which take longest, a quarter."""
    rng = np.random.default_rng(n)
    splits = [world.split(rng, n) for _ in range(trials)]
    made = []
    for with_texts in (False, True):
        taken = splits[: trials // 4] if with_texts and n > _N else splits
        name = f"human against human, {n} a side, {_spaces(with_texts)}: false alarms"
        made += _alarms(name, _measured(world, taken, with_texts), "<=", 0.05)
    return made


def found(world: World, trials: int) -> list[Row]:
    """A tenth of the texts is of one rare topic."""
    return [
        line
        for with_texts in (False, True)
        for line in _alarms(
            f"one rare topic in 10 % of {_N}, {_spaces(with_texts)}: found",
            _measured(world, _planted(world, trials, 0.1), with_texts), ">=", 0.95,
        )
    ]  # fmt: skip


def power(world: World, trials: int) -> list[Row]:
    """Other shares, and topics of other sizes."""
    made = []
    for share in _SHARES:
        alarms = _measured(world, _planted(world, trials, share), False)
        made.append(
            note(f"one rare topic in {share:.0%} of {_N}, cells: found", rate(alarms).value)
        )
    for low, high in ((0, 0.01), (0.01, 0.02), (0.02, 0.03)):
        sized = world.rare[(world.share[world.rare] > low) & (world.share[world.rare] <= high)]
        alarms = _measured(world, _planted(world, trials, 0.05, sized), False)
        name = f"a topic of {low:.0%} to {high:.0%} of the humans in 5 % of {_N}, cells: found"
        made.append(note(name, rate(alarms).value))
    return made


def pruned(world: World, trials: int) -> list[Row]:
    """A tenth of one rare topic, and what pruning makes of it."""
    many = _N // 10
    found_ = [
        prune(world.vectors[h], world.vectors[s], permutations=_FAST, resamples=0, seed=i)
        for i, (h, s) in enumerate(_planted(world, trials, 0.1))
    ]
    cut = [p for p in found_ if p.before.alarm]
    removed = [int((~p.keep).sum()) / many for p in cut]
    right = [_right(p, many) for p in cut]
    under = [p.after is not None and not p.after.alarm for p in cut]
    return [
        note("pruning: batches with an alarm", len(cut)),
        row("pruning: under the limit", ">=", 1.0, float(np.mean(under))),
        row("pruning: removed, in planted ones, mean", "<=", 1.0, float(np.mean(removed))),
        note("pruning: removed, in planted ones, most", max(removed)),
        note("pruning: batches in which it is 1.0 or less", float(np.mean(np.array(removed) <= 1))),
        row("pruning: planted among the removed, mean", ">=", 0.7, float(np.mean(right))),
        note("pruning: planted among the removed, least", min(right)),
        note(
            "pruning: batches in which they are 0.7 or more", rate([r >= 0.7 for r in right]).value
        ),
    ]


def overlap(world: World, humans: int) -> list[Row]:
    """MAUVE of humans, and of a batch with a tenth of one rare topic."""
    rng = np.random.default_rng(0)
    clean, batch = world.split(rng, humans // 2, humans // 20, int(world.rare[0]))
    more = rng.permutation(np.setdiff1d(np.arange(world.humans), np.concatenate([clean, batch])))
    human = world.vectors[np.concatenate([clean, more[: humans // 2]])]
    measured = mauve(human, world.vectors[batch])
    size = f"{measured.texts} a side"
    return [
        note(f"MAUVE, human against human, {size}", measured.human_human),
        note(f"MAUVE, one rare topic in 10 %, {size}", measured.human_synthetic),
    ]


def speed(world: World, n: int) -> list[Row]:
    """Seconds of one test after embedding."""
    h, s = world.split(np.random.default_rng(0), n)
    made = []
    for with_texts in (False, True):
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            _measure(world, h, s, with_texts, 0)
            taken.append(time.perf_counter() - start)
        name = f"one test, {n} a side, {_FAST} relabellings, {_spaces(with_texts)}: seconds"
        made.append(note(name, min(taken)))
    return made


def _measured(
    world: World, splits: Sequence[tuple[Rows, Rows]] | Iterator[tuple[Rows, Rows]], texts: bool
) -> list[bool]:
    return [_measure(world, h, s, texts, i).alarm for i, (h, s) in enumerate(splits)]


def _measure(world: World, h: Rows, s: Rows, with_texts: bool, seed: int) -> Drift:
    said = (world.said(h), world.said(s)) if with_texts else None
    return measure_drift(
        world.vectors[h], world.vectors[s], texts=said, permutations=_FAST, resamples=0, seed=seed
    )


def _planted(
    world: World, trials: int, share: float, among: Rows | None = None
) -> Iterator[tuple[Rows, Rows]]:
    """Splits with a share of one topic, the topics in turn."""
    rng = np.random.default_rng(int(1000 * share))
    kept = world.rare if among is None else among
    for trial in range(trials):
        yield world.split(rng, _N, round(_N * share), int(kept[trial % len(kept)]))


def _alarms(name: str, alarms: list[bool], how: str, wanted: float) -> list[Row]:
    share = rate(alarms)
    interval = f"{name}, 95 % interval of {share.rows} trials"
    return [
        row(name, how, wanted, share.value),
        note(f"{interval}, low", share.low),
        note(f"{interval}, high", share.high),
    ]


def _right(found_: Pruned, many: int) -> float:
    gone = ~found_.keep
    return float(gone[-many:].sum() / max(1, gone.sum()))


def _spaces(with_texts: bool) -> str:
    return "cells and n-grams" if with_texts else "cells"


def main(
    small: bool = False,
    json: Annotated[Path | None, typer.Option(help="write the rows here")] = None,
    cache: Annotated[Path | None, typer.Option(help="keep the embeddings here")] = None,
) -> None:
    """Measure, and print the table."""
    made = rows(small, cache)
    show(made, Console(width=120))
    if json is not None:
        write(made, json)


if __name__ == "__main__":
    typer.run(main)
