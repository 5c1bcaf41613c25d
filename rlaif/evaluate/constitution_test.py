"""A constitution's own examples, put to a teacher: is each principle read as its author meant it?

    examples → every principle → right of total, and principles that pull against each other

A judge that gets a principle's examples wrong would label by something else than the principle.
And where the better response of one principle's example clearly loses under another, no weights
serve both: the author has to say which one gives way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from rlaif.constitution import Constitution
from rlaif.engines.protocol import Engine
from rlaif.evaluate.comparisons import Comparison, Judged, examples, judge_comparisons
from rlaif.label.method import Method

CLEAR = 2.0
"""Nats: odds of about 7 to 1."""


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """What a judge makes of one principle's own examples.

    Attributes:
        principle: its id.
        right: examples whose better response wins.
        undecided: examples without a label, a tie among them; they are not right.
        total: all its examples; 0 where it has none.
        wrong: prompts of the examples whose worse response wins.
        reasons: why those without a label have none.
    """

    principle: str
    right: int
    undecided: int
    total: int
    wrong: tuple[str, ...]
    reasons: tuple[str, ...]

    def passes(self, threshold: float) -> bool:
        """Whether at least this share, 0 to 1, is right; one without examples is not tested."""
        return self.right >= round(threshold * self.total, 9)


@dataclass(frozen=True, slots=True)
class Pull:
    """A principle under which the better responses of another one's examples clearly lose.

    Attributes:
        principle: whose examples.
        against: the principle under which they lose.
        lost: how many.
        total: how many examples there are.
        margin: the widest loss, in nats.
        prompt: of the example with the widest loss.
    """

    principle: str
    against: str
    lost: int
    total: int
    margin: float
    prompt: str


def judge_examples(
    constitution: Constitution, engine: Engine, method: Method, *, clip: float, clear: float = CLEAR
) -> tuple[list[ExampleScore], list[Pull]]:
    """Each principle on its own examples, and each pair of principles that pulls apart on them.

    Args:
        constitution: whose examples are judged, each under every principle; in one call.
        engine: the judge.
        method: how it is asked.
        clip: probabilities are kept this far from 0 and 1.
        clear: least margin, in nats, that counts as a clear loss.

    Raises:
        EngineError: a label word is not a single token of the model.
    """
    own = examples(constitution)
    asked = [replace(c, principle=p) for c in own for p in constitution.principles]
    judged = judge_comparisons(asked, engine, constitution, method, clip=clip)
    # By the principle whose example it is, and the principle that it was judged under.
    table: dict[tuple[str, str], list[Judged]] = {}
    for j in judged:
        assert j.comparison.principle is not None
        table.setdefault((j.comparison.subset, j.comparison.principle.id), []).append(j)
    tested = [_tested(p.id, table.get((p.id, p.id), [])) for p in constitution.principles]
    pulls = [_pull(*key, rows, clear) for key, rows in table.items() if key[0] != key[1]]
    found = [pull for pull in pulls if pull is not None]
    return tested, sorted(found, key=lambda pull: -pull.margin)


def _tested(principle: str, rows: Sequence[Judged]) -> ExampleScore:
    undecided = [j for j in rows if not j.margin]
    return ExampleScore(
        principle,
        right=sum(bool(j.right) for j in rows),
        undecided=len(undecided),
        total=len(rows),
        wrong=tuple(_prompt(j.comparison) for j in rows if j.right is False),
        reasons=tuple(dict.fromkeys(j.reason or "tie" for j in undecided)),
    )


def _pull(principle: str, against: str, rows: Sequence[Judged], clear: float) -> Pull | None:
    lost = [j for j in rows if j.right is False and _size(j) >= clear]
    if not lost:
        return None
    worst = max(lost, key=_size)
    return Pull(principle, against, len(lost), len(rows), _size(worst), _prompt(worst.comparison))


def _size(judged: Judged) -> float:
    return abs(judged.margin or 0.0)


def _prompt(comparison: Comparison) -> str:
    return comparison.prompt[-1].text


def print_test(
    tested: Sequence[ExampleScore], pulls: Sequence[Pull], threshold: float, console: Console
) -> None:
    """A line a principle, the examples it got wrong, and what pulls apart."""
    table = Table("principle", "right", "", "wrong on", title="The teacher on the examples")
    for t in tested:
        said = "no examples" if not t.total else "" if t.passes(threshold) else "TOO FEW"
        if t.undecided:
            said = ", ".join(filter(None, (said, f"{t.undecided} undecided: {t.reasons[0]}")))
        wrong = "\n".join(_short(prompt) for prompt in t.wrong)
        table.add_row(t.principle, f"{t.right}/{t.total}", said, wrong)
    console.print(table)
    if pulls:
        table = Table("examples of", "lose under", "how many", "by nats", "most on",
                      title="Principles that pull against each other")  # fmt: skip
        for p in pulls:
            many = f"{p.lost}/{p.total}"
            table.add_row(p.principle, p.against, many, f"{p.margin:.1f}", _short(p.prompt))
        console.print(table)


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
