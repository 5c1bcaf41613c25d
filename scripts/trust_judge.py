"""Both orders, calibrated confidence and the gate, each against the fault that it is for.

python scripts/trust_judge.py [--measured 10500] [--fitted 3000]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import typer
from bench_rows import Row, note, row, show
from rich.console import Console
from trust_noise import LEVELS, PAIRWISE, accuracy, judged, noise_of, teacher

from rlaif.engines.protocol import RATINGS, Engine
from rlaif.engines.scripted import ScriptedEngine
from rlaif.evaluate.comparisons import Comparison, Judged
from rlaif.evaluate.gate import balanced, failures
from rlaif.evaluate.scorecard import Cost, scorecard
from rlaif.label.aggregate import fit_weights
from rlaif.label.calibrate import Curve, calibration_error, fit
from rlaif.label.method import Method
from rlaif.label.templates import load_template
from rlaif.recipe import Gate
from rlaif.sandbox.comparisons import comparisons
from rlaif.sandbox.weakened import Faults

_BIAS = 1.5
_SCALE = 0.25


def rows(engine: Engine, measured: int = 10_500, fitted: int = 3_000) -> list[Row]:
    """All rows of this file.

    Args:
        engine: the sandbox's teacher, remembered.
        measured: comparisons to measure on.
        fitted: comparisons, on other prompts, to fit on.
    """
    asked = comparisons(measured + fitted)
    for_fit, held_out = asked[:fitted], asked[fitted:]
    made = orders(engine, held_out[:3000])
    for level in LEVELS:
        made += confidence(engine, for_fit, held_out, level)
    return made + gate(engine, held_out[:400]) + weights()


def orders(engine: Engine, asked: Sequence[Comparison]) -> list[Row]:
    """A liking for the first place, and what averaging the two orders makes of it."""
    faults = Faults(scale=_SCALE, item_noise=1.0)
    plain, biased = (
        judged(asked, engine, f) for f in (faults, replace(faults, position_bias=_BIAS))
    )
    alone = [_in_order(rows) for rows in (plain, biased)]
    gap = max(abs((a.margin or 0) - (b.margin or 0)) for a, b in zip(plain, biased, strict=True))
    return [
        row(f"one order: accuracy lost to a bias of {_BIAS} nats", ">=", 0.05, alone[0] - alone[1]),
        row("both orders: accuracy lost to it", "<=", 0.005, accuracy(plain) - accuracy(biased)),
        row("both orders: largest change of the log-odds", "<=", 1e-5, gap),
    ]


def _in_order(rows_: Sequence[Judged]) -> float:
    """Accuracy from the first order alone."""
    return sum(
        j.in_order is not None and (j.in_order > 0) == (j.comparison.better == 0) for j in rows_
    ) / len(rows_)


def confidence(
    engine: Engine, for_fit: Sequence[Comparison], held_out: Sequence[Comparison], level: float
) -> list[Row]:
    """Calibration error at one level of noise, by a curve fitted on other prompts."""
    faults = noise_of(level, for_fit, engine)
    curve = _curve(judged(for_fit, engine, faults))
    labels = [j for j in judged(held_out, engine, faults) if j.margin]
    right = [bool(j.right) for j in labels]
    raw, calibrated = (
        calibration_error([c.confidence(abs(j.margin or 0)) for j in labels], right)
        for c in (_IDENTITY, curve)
    )
    return [
        note(f"judge of {level}: accuracy on {len(labels)} rows", float(np.mean(right))),
        note(f"judge of {level}: calibration error, raw", raw),
        row(f"judge of {level}: calibration error, calibrated", "<=", 0.03, calibrated),
    ]


_IDENTITY = Curve(way="temperature", slopes=(1.0,), rows=0)


def _curve(rows_: Sequence[Judged]) -> Curve:
    labels = [j for j in rows_ if j.margin]
    return fit([abs(j.margin or 0) for j in labels], [bool(j.right) for j in labels], "platt")


def gate(engine: Engine, asked: Sequence[Comparison]) -> list[Row]:
    """Judges that cannot judge, and one that can."""
    always_5 = ScriptedEngine(score=lambda chat, labels: [0.02 / (len(RATINGS) - 1)] * 4 + [0.98])
    rating = Method("rating", load_template("rating"))
    broken = {
        "always 5": judged(balanced(asked), always_5, None, rating),
        "coin flip": judged(balanced(asked), engine, Faults(scale=1e-9, item_noise=5.0)),
        "the longer one": judged(balanced(asked), engine, Faults(scale=1e-9, length_bias=5.0)),
        "always A": judged(balanced(asked), engine, Faults(scale=1e-9, position_bias=5.0)),
    }
    stopped = sum(
        _stops(rows_, rating if n == "always 5" else PAIRWISE) for n, rows_ in broken.items()
    )
    return [
        row("gate: broken judges stopped, of 4", ">=", 4, stopped),
        row(
            "gate: the teacher stopped", "<=", 0, _stops(judged(balanced(asked), engine), PAIRWISE)
        ),
    ]


def _stops(rows_: Sequence[Judged], method: Method) -> bool:
    card = scorecard(rows_, {}, method, Cost(len(rows_), 0, 0, 0, 0.0))
    return bool(failures(card, Gate(data=Path("unused"))))


def weights(rows_: int = 400, seed: int = 0) -> list[Row]:
    """Labels by weights that the author did not guess: how often margins agree with them."""
    rng = np.random.default_rng(seed)
    true, given = np.array([4.0, 2.0, 1.0, 0.5, 0.2]), np.ones(5)
    gaps = rng.normal(0, 2, (10 * rows_, 5))
    better = rng.random(len(gaps)) < 1 / (1 + np.exp(-gaps @ true))
    found = fit_weights(gaps[:rows_], better[:rows_], given.tolist())
    agree = [float(np.mean((gaps[rows_:] @ w > 0) == better[rows_:])) for w in (given, found, true)]
    return [
        note("weights: accuracy with the given ones", agree[0]),
        note(f"weights: accuracy with those fitted to {rows_} labels", agree[1]),
        note("weights: accuracy with the true ones", agree[2]),
    ]


def main(measured: int = 10_500, fitted: int = 3_000) -> None:
    """Measure, and print the table."""
    with teacher() as engine:
        show(rows(engine, measured, fitted), Console(width=120))


if __name__ == "__main__":
    typer.run(main)
