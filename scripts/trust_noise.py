"""The sandbox's teacher, exactly and with noise of known sizes: what trust_*.py stand on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rlaif.sandbox
from rlaif.constitution import Constitution, Principle
from rlaif.engines.load import load_engine
from rlaif.engines.protocol import Engine
from rlaif.evaluate.comparisons import Comparison, Judged, judge_comparisons
from rlaif.label.method import Method
from rlaif.label.templates import load_template
from rlaif.recipe import Model
from rlaif.sandbox.remembered import Remembered
from rlaif.sandbox.weakened import Faults, Weakened

TEACHER = Path(rlaif.sandbox.__file__).parent / "models" / "teacher"
LEVELS = (0.95, 0.90, 0.80)
"""Both-order accuracies of the weakened judges."""
CLIP = 1e-30  # ±69 nats, as good as none: nothing but the noise shapes a margin
PAIRWISE = Method("pairwise", load_template("pairwise"))
UNUSED = Constitution(name="unused", principles=(Principle(id="unused", text="Unused."),))


@contextmanager
def teacher() -> Iterator[Remembered]:
    """The sandbox's teacher, which is asked each question once."""
    engine = Remembered(load_engine(Model(model=str(TEACHER))))
    try:
        yield engine
    finally:
        engine.close()


def judged(
    comparisons: Sequence[Comparison],
    engine: Engine,
    faults: Faults | None = None,
    method: Method = PAIRWISE,
    constitution: Constitution = UNUSED,
    clip: float = CLIP,
) -> list[Judged]:
    """What a judge with these faults says of comparisons; by default, about one principle each."""
    judge = engine if faults is None else Weakened(engine, faults)
    return judge_comparisons(comparisons, judge, constitution, method, clip=clip)


def accuracy(rows: Sequence[Judged]) -> float:
    """Share of right labels, both orders together; a comparison without a label is not right."""
    return sum(j.right is True for j in rows) / len(rows)


def noise_of(
    level: float,
    comparisons: Sequence[Comparison],
    engine: Engine,
    seed: int = 0,
    method: Method = PAIRWISE,
    constitution: Constitution = UNUSED,
    clip: float = CLIP,
) -> Faults:
    """The noise at which accuracy on these comparisons is `level`, by bisection.

    One part stays with the item; another, half its size, is drawn anew for every call.
    """
    low, high = 0.0, 200.0
    for _ in range(14):
        size = (low + high) / 2
        faults = Faults(item_noise=size, call_noise=size / 2, seed=seed)
        rows = judged(comparisons, engine, faults, method, constitution, clip)
        low, high = (size, high) if accuracy(rows) > level else (low, size)
    print(f"  noise of {high:.2f} nats: accuracy {level}", file=sys.stderr, flush=True)
    return Faults(item_noise=high, call_noise=high / 2, seed=seed)
