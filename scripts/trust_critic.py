"""The critic at a confidence of 0.95: how right what passes is, and how much of what could passes.

    python scripts/trust_critic.py [--measured 10500] [--fitted 3000]

Judge and critic are two weakened copies of the sandbox's teacher, their noise drawn apart. As the
noise is known, so is the exact posterior that a label is right: the best that a critic can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import trust_critic_run
import typer
from bench_rows import Row, note, row, show
from numpy.typing import NDArray
from rich.console import Console
from trust_noise import LEVELS, judged, noise_of, teacher

from rlaif.engines.protocol import Engine
from rlaif.evaluate.comparisons import Comparison, Judged
from rlaif.filters.critic import fit_critic
from rlaif.intervals import rate
from rlaif.sandbox.comparisons import comparisons
from rlaif.sandbox.weakened import Faults

Floats = NDArray[np.float64]
_CONFIDENCE = 0.95


def rows(engine: Engine, measured: int = 10_500, fitted: int = 3_000) -> list[Row]:
    """The rows of each level of noise, and of a whole run (trust_critic_run.py).

    Args:
        engine: the sandbox's teacher, remembered.
        measured: comparisons to measure on, one a prompt.
        fitted: comparisons, on other prompts, to fit on.
    """
    asked = comparisons(measured + fitted)
    made = list[Row]()
    for level in LEVELS:
        made += _level(engine, asked[:fitted], asked[fitted:], level)
    return made + trust_critic_run.rows(engine, measured // 10, min(fitted, 2_000))


def _level(
    engine: Engine, for_fit: Sequence[Comparison], held_out: Sequence[Comparison], level: float
) -> list[Row]:
    of_judge = noise_of(level, for_fit, engine)
    of_critic = replace(of_judge, seed=1)
    margins = ([j.margin for j in judged(for_fit, engine, f)] for f in (of_judge, of_critic))
    curve = fit_critic([c.better for c in for_fit], *margins)
    clean, labels, reviews = (judged(held_out, engine, f) for f in (None, of_judge, of_critic))
    right = np.array([bool(j.right) for j in labels])
    a = np.array([j.margin or 0.0 for j in labels])
    b = np.array([j.margin or 0.0 for j in reviews])
    evidence = zip(np.abs(a), np.where(a > 0, b, -b), strict=True)
    passed = np.array([curve.confidence(*e) >= _CONFIDENCE for e in evidence])
    exact = posterior(clean, a, b, of_judge) >= _CONFIDENCE
    found = rate(right[passed].tolist())
    of = f"critic of a judge of {level}"
    return [
        row(f"{of}: pairs that pass, of {len(a)}", ">=", 1000, int(passed.sum())),
        row(f"{of}: share right", ">=", 0.95, found.value),
        row(f"{of}: lower end of the 95 % interval", ">=", 0.94, found.low),
        row(f"{of}: pairs that pass ÷ by the exact posterior", ">=", 0.8,
            float(passed.sum() / exact.sum())),
        note(f"{of}: share right by the exact posterior", float(right[exact].mean())),
    ]  # fmt: skip


def posterior(clean: Sequence[Judged], judge: Floats, critic: Floats, faults: Faults) -> Floats:
    """The exact probability that each label is right, given both margins.

    Each true margin is one of the clean ones, all alike; each model adds to it noise that is normal
    with variance item² + call²/2, as a margin is the mean of two calls.
    """
    variance = faults.item_noise**2 + faults.call_noise**2 / 2
    true = np.array([(j.margin or 0.0) * (1 if j.comparison.better == 0 else -1) for j in clean])
    sign = np.where(judge > 0, 1.0, -1.0)
    a, b = np.abs(judge), critic * sign  # in favour of the label
    found = np.empty(len(a))
    for start in range(0, len(a), 500):
        block = slice(start, start + 500)
        total = (a[block] + b[block])[:, None] * true / variance
        spread = -(true**2) / variance
        found[block] = _share(total + spread, -total + spread)
    return found


def _share(for_: Floats, against: Floats) -> Floats:
    top = np.maximum(for_.max(1), against.max(1))[:, None]
    yes, no = np.exp(for_ - top).sum(1), np.exp(against - top).sum(1)
    return np.asarray(yes / (yes + no))


def main(measured: int = 10_500, fitted: int = 3_000) -> None:
    """Measure, and print the table."""
    with teacher() as engine:
        show(rows(engine, measured, fitted), Console(width=120))


if __name__ == "__main__":
    typer.run(main)
