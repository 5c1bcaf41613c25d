"""The critic as a run has it: a whole constitution, picks and pairs of several responses.

    python scripts/trust_critic_run.py [--prompts 1000] [--fitted 2000]

trust_critic.py measures the confidence alone, beside the best that there could be. Here a weakened
judge labels and picks by the recipe's defaults, and a critic that is as weak, with noise of its
own, reviews what was picked by `review_pairs` and `review_picks`. Gold knows what is right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import typer
from bench_rows import Row, note, row, show
from rich.console import Console
from trust_noise import TEACHER, judged, noise_of, teacher

from rlaif.constitution import Constitution
from rlaif.engines.protocol import Engine
from rlaif.filters.critic import Critic, fit_critic, review_pairs, review_picks
from rlaif.intervals import bootstrap
from rlaif.label.judge import judge
from rlaif.label.method import Method
from rlaif.label.pick import pick_pairs, pick_sft
from rlaif.label.templates import load_template
from rlaif.recipe import Judge, Pick
from rlaif.records import Message, Record, Response, record_id
from rlaif.sandbox import prompts as world
from rlaif.sandbox.comparisons import constitution_comparisons
from rlaif.sandbox.lessons import judged_answer
from rlaif.sandbox.measure import gold_rank
from rlaif.sandbox.weakened import Weakened

_POINTWISE = Method("pointwise", load_template("pointwise"))
_CLIP = Judge().clip
_RESPONSES = 4
_CONFIDENCE = 0.95
_HOW: dict[str, Any] = {"mode": "pointwise", "clip": _CLIP, "judge": "judge"}


def rows(
    engine: Engine, prompts: int = 1_000, fitted: int = 2_000, level: float = 0.90
) -> list[Row]:
    """What passes of pairs and of picks, and how much of it is right.

    Args:
        engine: the sandbox's teacher, remembered.
        prompts: records to measure on.
        fitted: comparisons, on other prompts, to fit on.
        level: accuracy of the judge, and of the critic, on those.
    """
    constitution = Constitution.load(TEACHER.parents[1] / "constitutions" / "concierge.yaml")
    for_fit = constitution_comparisons(fitted, constitution)
    of_judge = noise_of(
        level, for_fit, engine, method=_POINTWISE, constitution=constitution, clip=_CLIP
    )
    of_critic = replace(of_judge, seed=1)
    margins = [
        [j.margin for j in judged(for_fit, engine, faults, _POINTWISE, constitution, _CLIP)]
        for faults in (of_judge, of_critic)
    ]
    critic = Critic(
        Weakened(engine, of_critic), _POINTWISE, _POINTWISE, constitution,
        clip=_CLIP, curve=fit_critic([c.better for c in for_fit], *margins),
    )  # fmt: skip
    records = judge(
        _records(prompts, {c.prompt[-1].text for c in for_fit}),
        Weakened(engine, of_judge), constitution.principles, _POINTWISE,
    )  # fmt: skip
    return _pairs(records, critic, level) + _picks(records, critic, level)


def _records(count: int, taken: set[str], seed: int = 1) -> list[Record]:
    """Prompts that are not taken, with answers like those of the comparisons."""
    rng = random.Random(f"records {seed}")
    made = list[Record]()
    for prompt in world.prompts(count + len(taken), "evaluate", seed):
        if prompt in taken or len(made) == count:
            continue
        texts = [judged_answer(prompt, rng) for _ in range(_RESPONSES)]
        responses = tuple(Response(text, len(text.split()), "stop") for text in texts)
        chat = (Message("user", prompt),)
        made.append(Record(record_id(chat), chat, responses))
    return made


def _pairs(records: Sequence[Record], critic: Critic, level: float) -> list[Row]:
    picked, _ = pick_pairs(records, critic.constitution, Pick(), **_HOW)
    gold = _all_gold(records, critic.constitution)

    def right(pair: dict[str, object]) -> float:
        ranks = gold[str(pair["record_id"])]
        return ranks[_index(pair, "chosen_index")] > ranks[_index(pair, "rejected_index")]

    kept, _ = review_pairs(picked, critic, _CONFIDENCE)
    return _shares(f"critic in a run, judge of {level}: pairs", picked, kept, right)


def _picks(records: Sequence[Record], critic: Critic, level: float) -> list[Row]:
    picked, _ = pick_sft(records, critic.constitution, Pick(), **_HOW)
    gold = _all_gold(records, critic.constitution)

    def no_worse(pick: dict[str, object]) -> float:
        """The share of the record's other responses that the picked one is no worse than."""
        others = list(gold[str(pick["record_id"])])
        mine = others.pop(_index(pick, "response_index"))
        return sum(mine >= other for other in others) / len(others)

    kept, _ = review_picks(picked, records, critic, _CONFIDENCE)
    of = f"critic in a run, judge of {level}: picks, no worse than another response"
    return _shares(of, picked, kept, no_worse)


def _all_gold(records: Sequence[Record], constitution: Constitution) -> dict[str, list[float]]:
    return {record.id: _gold(record, constitution) for record in records}


def _gold(record: Record, constitution: Constitution) -> list[float]:
    """Where gold has each response: one that breaks no veto is over all that do."""
    ranks = [gold_rank(record.prompt[-1].text, r.text, constitution) for r in record.responses]
    return [clean + share for clean, share in ranks]


def _index(row_: dict[str, object], column: str) -> int:
    return int(str(row_[column]))


def _shares(
    of: str,
    picked: Sequence[dict[str, object]],
    kept: Sequence[dict[str, object]],
    right: Callable[[dict[str, object]], float],
) -> list[Row]:
    before, after = ([right(r) for r in rows_] for rows_ in (picked, kept))
    low, _ = bootstrap(
        lambda i: float(np.mean(np.take(after, i))), [str(r) for r in range(len(after))]
    )
    return [
        note(f"{of}: pass, of {len(picked)}", len(kept)),
        note(f"{of}: share right before the critic", float(np.mean(before))),
        row(f"{of}: share right", ">=", _CONFIDENCE, float(np.mean(after))),
        note(f"{of}: lower end of the 95 % interval", low),
    ]


def main(prompts: int = 1_000, fitted: int = 2_000) -> None:
    """Measure, and print the table."""
    with teacher() as engine:
        show(rows(engine, prompts, fitted), Console(width=120))


if __name__ == "__main__":
    typer.run(main)
