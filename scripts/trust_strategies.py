"""What each way to ask a judge is worth, and what it costs, on the sandbox's teacher with noise.

    python scripts/trust_strategies.py [--comparisons 2400] [--seed 0] [--json FILE]

The teacher is made worse until one call compares two responses rightly in a given share of cases
(LEVELS). Half of the noise, by variance, stays with what is asked about; half is drawn anew at
every call. Then every fixed way and escalation answer the same comparisons (trust_ways.py). Tokens
are those of the teacher's own tokenizer, prompts and generated, every call in full: no cache, no
shared prefix. Escalation's weights, curves and threshold are found on comparisons of other prompts.

The noise is drawn several times over the same comparisons, and counts are over all draws: the
teacher is asked once, and what one draw makes of an equal contest is luck. Intervals are over
prompts. Debates are dear, and are held about the first comparisons alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import trust_ways
import typer
from bench_rows import Row, note, row, show, write
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from trust_noise import TEACHER, teacher

from rlaif.engines.chat import ChatEncoder
from rlaif.engines.checkpoint import load_tokenizer
from rlaif.engines.protocol import Engine
from rlaif.evaluate.comparisons import Comparison
from rlaif.filters.escalate import Evidence, Step, escalate, threshold_within, worth
from rlaif.filters.spent import Length, Metered, Spent, answered
from rlaif.filters.ways import Question, Way
from rlaif.intervals import bootstrap, rate
from rlaif.label.calibrate import calibration_error
from rlaif.records import Chat
from rlaif.sandbox.comparisons import comparisons
from rlaif.sandbox.weakened import Faults, Weakened

LEVELS = (0.90, 0.83, 0.75)
"""Share of comparisons that one call decides rightly."""
WANTED = (0.90, 0.83)  # where escalation is to reach the most thorough way
PRECISION = 0.95
BUDGET = 0.45  # of what the most thorough way costs: escalation's, by which its threshold is set
DRAWS = 5  # of the noise, over the same comparisons
LEARNED = 500  # comparisons that escalation is fitted on
DEBATED = 100  # comparisons that are debated, in each draw
_ALL = "escalation, every step for all"


@dataclass(frozen=True)
class Data:
    """Comparisons as questions, and which response gold has as the better one."""

    comparisons: Sequence[Comparison]

    @property
    def questions(self) -> list[Question]:
        """Is the first response the better one?"""
        return [
            Question(
                c.prompt, c.responses[0], c.principle.text if c.principle else "", c.responses[1]
            )
            for c in self.comparisons
        ]

    @property
    def first(self) -> list[bool]:
        """Whether it is."""
        return [c.better == 0 for c in self.comparisons]

    def head(self, n: int) -> Data:
        """The first n."""
        return Data(self.comparisons[:n])


@dataclass(frozen=True)
class Outcome:
    """What a way made of comparisons: for each, how sure it is (NaN: no label), and if rightly."""

    name: str
    sure: NDArray[np.float64]
    right: NDArray[np.bool_]
    groups: Sequence[str]
    spent: Spent
    asked: tuple[int, ...] = ()

    @property
    def accepted(self) -> int:
        """Gold-correct pairs among the surest labels, as many as have the precision together."""
        return accepted(self.sure, self.right)

    @property
    def tokens(self) -> float:
        """A comparison."""
        return self.spent.tokens / len(self.right)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accepted as a share of all comparisons."""
        n = len(self.right)
        return bootstrap(lambda i: accepted(self.sure[i], self.right[i]) / n, self.groups, 200)


def accepted(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> int:
    """How many of the surest labels are right, taking as many as leaves `PRECISION` of them so."""
    labels = np.flatnonzero(~np.isnan(sure))
    order = labels[np.argsort(-sure[labels], kind="stable")]
    so_far = np.cumsum(right[order])
    fine = np.flatnonzero(so_far >= PRECISION * np.arange(1, len(order) + 1))
    return int(so_far[fine[-1]]) if len(fine) else 0


def by_way(name: str, way: Way, data: Data, judge: Engine, length: Length) -> Outcome:
    """All the comparisons by one way."""
    answers, spent = answered(data.questions, way, judge, length)
    evidence = [a.log_odds for a in answers]
    return _outcome(name, evidence, [None if e is None else abs(e) for e in evidence], data, spent)


def by_steps(
    name: str, steps: Sequence[Step], learned: Sequence[Evidence], data: Data, judge: Engine,
    length: Length, threshold: float,
) -> Outcome:  # fmt: skip
    """All the comparisons by escalation."""
    metered = Metered(judge, length)
    found = escalate(data.questions, metered, steps=steps, learned=learned, threshold=threshold)
    asked = tuple(sum(len(f.answers) > i for f in found) for i in range(len(steps)))
    evidence, confidence = [f.evidence for f in found], [f.confidence for f in found]
    return _outcome(name, evidence, confidence, data, metered.spent, asked)


def _outcome(
    name: str, evidence: Sequence[float | None], sure: Sequence[float | None], data: Data,
    spent: Spent, asked: tuple[int, ...] = (),
) -> Outcome:  # fmt: skip
    right = [
        e is not None and e != 0 and (e > 0) == g for e, g in zip(evidence, data.first, strict=True)
    ]
    sizes = np.array(
        [np.nan if s is None or not e else s for e, s in zip(evidence, sure, strict=True)]
    )
    return Outcome(name, sizes, np.array(right), [c.group for c in data.comparisons], spent, asked)


def noise(level: float, data: Data, engine: Engine, seed: int) -> Faults:
    """The noise with which one call is right at this rate, by bisection."""
    way = trust_ways.fixed()["one call"]
    low, high = 0.0, 100.0
    for _ in range(12):
        size = (low + high) / 2
        judge = Weakened(engine, Faults(item_noise=size, call_noise=size, seed=seed))
        right = by_way("", way, data, judge, lambda _: 0).right.mean()
        low, high = (size, high) if right > level else (low, size)
    return Faults(item_noise=high, call_noise=high, seed=seed)


def at_level(
    level: float, learning: Data, data: Data, engine: Engine, length: Length, seed: int
) -> list[Outcome]:
    """Every way at one level of noise; then escalation, and all its steps for everything."""
    seeds = range(seed * DRAWS, (seed + 1) * DRAWS)
    drawn = [_one_draw(level, learning, data, engine, length, s) for s in seeds]
    return [together(outcomes) for outcomes in zip(*drawn, strict=True)]


def _one_draw(
    level: float, learning: Data, data: Data, engine: Engine, length: Length, seed: int
) -> list[Outcome]:
    faults = noise(level, data, engine, seed)
    print(f"  one call {level} right: {faults.item_noise:.2f} nats", file=sys.stderr, flush=True)
    judge = Weakened(engine, faults)
    found = list[Outcome]()
    for name, way in (trust_ways.fixed() | trust_ways.written()).items():
        few = data.head(DEBATED) if "debate" in name else data
        found.append(by_way(name, way, few, judge, length))
    steps = trust_ways.steps()
    learned, threshold = fitted(steps, learning, judge, length)
    print(f"  a question rests at {threshold:.4f}", file=sys.stderr, flush=True)
    for name, rests in (("escalation", threshold), (_ALL, math.inf)):
        found.append(by_steps(name, steps, learned, data, judge, length, rests))
    return found


def fitted(
    steps: Sequence[Step], learning: Data, judge: Engine, length: Length
) -> tuple[list[Evidence], float]:
    """What the steps are worth, and the threshold that the budget leaves."""
    asked = [answered(learning.questions, step.way, judge, length) for step in steps]
    said = [answers for answers, _ in asked]
    learned = [worth(said[: i + 1], learning.first) for i in range(len(steps))]
    costs = [spent.tokens / len(learning.first) for _, spent in asked]
    return learned, threshold_within(BUDGET * max(costs), said, learned, costs)


def together(drawn: Sequence[Outcome]) -> Outcome:
    """What one way made of all draws of the noise."""
    return Outcome(
        drawn[0].name,
        np.concatenate([o.sure for o in drawn]),
        np.concatenate([o.right for o in drawn]),
        [group for o in drawn for group in o.groups],
        sum((o.spent for o in drawn), Spent()),
        tuple(map(sum, zip(*(o.asked for o in drawn), strict=True))),
    )


def rows(count: int = 2400, seed: int = 0, console: Console | None = None) -> list[Row]:
    """Each level's escalation against the best fixed way, and debates against votes.

    Args:
        count: comparisons, over all draws of the noise.
        seed: of the comparisons and the draws.
        console: where the table of each level goes.
    """
    learning = Data(comparisons(LEARNED, seed + 901))
    known = {c.group for c in learning.comparisons}
    fresh = [c for c in comparisons(count, seed + 902) if c.group not in known]
    data, length, made = Data(fresh[: count // DRAWS]), token_length(), list[Row]()
    with teacher() as engine:
        for level in LEVELS:
            found = at_level(level, learning, data, engine, length, seed)
            if console is not None:
                console.print(table(level, found))
            made += _rows(level, {o.name: o for o in found})
    return made


def token_length() -> Length:
    """Tokens of a chat as the teacher reads it."""
    encoder = ChatEncoder(load_tokenizer(str(TEACHER), None, False), "teacher")

    @cache
    def length(chat: Chat) -> int:
        [ids] = encoder.encode([chat])
        if isinstance(ids, Exception):
            raise ids
        return len(ids)

    return length


def _rows(level: float, found: dict[str, Outcome]) -> list[Row]:
    """Against the most thorough fixed way, the one with most tokens, and against the best."""
    ours, n = found["escalation"], len(found["escalation"].right)
    rivals = [found[w] for w in trust_ways.fixed() | trust_ways.written() if "debate" not in w]
    most = max(rivals, key=lambda o: o.tokens)
    best = max(rivals, key=lambda o: (o.accepted, -o.tokens))
    made = list[Row]()
    for which, rival in (("most thorough", most), ("best", best)):
        of = f"one call {level} right: escalation ÷ {which} fixed way ({rival.name})"
        pairs, tokens = ours.accepted / rival.accepted, ours.tokens / rival.tokens
        low, high = _between(ours, rival)
        name = f"{of}: right pairs (95 %: {low:.3f} to {high:.3f})"
        wanted = [(name, ">=", 1.0, pairs), (f"{of}: tokens", "<=", 0.5, tokens)]
        held = level in WANTED and rival is most
        made += [row(*r) if held else note(r[0], r[3]) for r in wanted]
    error = calibration_error(ours.sure, ours.right)
    made.append(note(f"one call {level} right: calibration error of escalation, n={n}", error))
    for debated, voted in trust_ways.EQUAL_CALLS.items():
        gap = float(found[debated].right.mean() - found[voted].right.mean())
        made.append(note(f"one call {level} right: accuracy of {debated} - {voted}", gap))
    return made


def _between(ours: Outcome, rival: Outcome) -> tuple[float, float]:
    """The 95 % interval of the ratio of accepted pairs, over prompts; both saw the same rows."""

    def ratio(i: NDArray[np.intp]) -> float:
        return accepted(ours.sure[i], ours.right[i]) / accepted(rival.sure[i], rival.right[i])

    return bootstrap(ratio, ours.groups, 200)


def table(level: float, found: Sequence[Outcome]) -> Table:
    """The outcomes of one level."""
    made = Table(
        "way", "n", "calls", "tokens", "accuracy (95 %)",
        f"right pairs at {PRECISION}, % of all (95 %)", "right pairs per 1000 tokens",
        title=f"one call is right in {level:.0%}: calls and tokens a comparison",
    )  # fmt: skip
    for o in found:
        n, share = len(o.right), rate([bool(x) for x in o.right])
        low, high = o.interval
        made.add_row(
            o.name, str(n), f"{o.spent.calls / n:.1f}", f"{o.tokens:.0f}",
            f"{share.value:.3f} ({share.low:.3f}–{share.high:.3f})",
            f"{100 * o.accepted / n:.1f} ({100 * low:.1f}–{100 * high:.1f})",
            f"{1000 * o.accepted / o.spent.tokens:.2f}",
        )  # fmt: skip
        if o.name == "escalation":
            made.caption = f"escalation: steps asked about {' → '.join(map(str, o.asked))}"
    return made


def main(
    count: Annotated[int, typer.Option("--comparisons", help="over all draws", min=100)] = 2400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure and print."""
    console = Console(width=150)
    found = rows(count, seed, console)
    show(found, console)
    if json_file is not None:
        write(found, json_file)


if __name__ == "__main__":
    typer.run(main)
