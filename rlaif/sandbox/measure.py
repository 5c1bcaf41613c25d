"""The sandbox's exact measures: what no real world has, a gold label for everything.

How good a judge is, a pair, a student, a reward model: each against `answers.traits`.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from rlaif.constitution import Constitution
from rlaif.engines.protocol import Engine
from rlaif.label.ask import ask
from rlaif.label.method import Method
from rlaif.records import Record
from rlaif.sandbox import principles, prompts
from rlaif.sandbox.answers import CORES, MANNERS, answer, traits
from rlaif.sandbox.lessons import judged_answer
from rlaif.sandbox.principles import Wish, kept


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a judge's verdict is the gold one; an abstention is not right.

    Attributes:
        mean: over all questions.
        by_attribute: over those on one attribute.
        abstained: share of questions without a verdict.
    """

    mean: float
    by_attribute: Mapping[str, float]
    abstained: float


def judge_accuracy(
    engine: Engine, method: Method, n: int, seed: int = 0, *, held_out: bool = False
) -> Accuracy:
    """A pointwise or rating judge on `n` answers to evaluation prompts, seven questions each.

    Every question applies to its prompt. The answers are half good and half bad in each attribute,
    some of them bare, garbled or of another question, and the principles are drawn in all wordings.

    Args:
        engine: the judge.
        method: how it is asked.
        n: how many answers.
        seed: of the answers and of the wordings.
        held_out: ask in wordings that no model of the sandbox was trained on.
    """
    rng = random.Random(f"judge {seed}")
    chats, gold = [], []
    for prompt in prompts.prompts(n, "evaluate", seed):
        response = judged_answer(prompt, rng)
        found = traits(prompt, response) or {}
        core = next(c for c in CORES.values() if c in found)
        for attribute in (core, core, "form", *rng.sample(MANNERS, 4)):
            wish = Wish(attribute, rng.random() < 0.5)
            text = principles.draw(rng, *wish, held_out=held_out)
            question = {"prompt": prompt, "response": response, "principle": text}
            chats.append((method.template.message(method.reasoning, **question),))
            gold.append((attribute, kept(wish, found)))
    answers = ask(chats, engine, method)
    right = defaultdict(list)
    for (attribute, keeps), said in zip(gold, answers, strict=True):
        right[attribute].append(said.log_odds is not None and (said.log_odds > 0) == keeps)
    return Accuracy(
        mean=_mean([ok for oks in right.values() for ok in oks]),
        by_attribute={a: _mean(oks) for a, oks in sorted(right.items())},
        abstained=_mean([said.log_odds is None for said in answers]),
    )


def wishes(constitution: Constitution) -> dict[str, Wish | None]:
    """What each principle asks, by its id; None for a text that the world has no gold for."""
    return {p.id: principles.read(p.text) for p in constitution.principles}


def compliance(
    records: Iterable[Record], constitution: Constitution
) -> tuple[float, dict[str, float]]:
    """Share of applicable principles that responses keep: in all, and under each principle.

    Returns:
        (mean over every applicable principle of every response, the same by principle id). A
        principle without gold is left out; NaN where nothing applies.
    """
    asked = wishes(constitution)
    found: dict[str, list[bool]] = {id_: [] for id_, wish in asked.items() if wish is not None}
    for record in records:
        for response in record.responses:
            for id_, outcome in outcomes(record.prompt[-1].text, response.text, asked).items():
                found[id_].append(outcome)
    every = [outcome for column in found.values() for outcome in column]
    return _mean(every), {id_: _mean(column) for id_, column in found.items()}


def kept_by_gold(record: Record, constitution: Constitution) -> dict[str, list[float]]:
    """A record's answers against gold, as the metric of a loop: 1 kept, 0 broken, by principle."""
    asked, found = wishes(constitution), defaultdict[str, list[float]](list)
    for response in record.responses:
        for id_, outcome in outcomes(record.prompt[-1].text, response.text, asked).items():
            found[id_].append(float(outcome))
    return dict(found)


def outcomes(prompt: str, response: str, asked: Mapping[str, Wish | None]) -> dict[str, bool]:
    """Whether a response keeps each principle that applies to its prompt, by principle id."""
    seen = traits(prompt, response)
    if seen is None:
        return {}
    decided = {id_: kept(wish, seen) for id_, wish in asked.items() if wish is not None}
    return {id_: outcome for id_, outcome in decided.items() if outcome is not None}


def gold_score(prompt: str, response: str, constitution: Constitution) -> float:
    """Weighted share of the applicable principles that a response keeps, vetoes as weights."""
    weights = {p.id: p.weight for p in constitution.principles}
    found = outcomes(prompt, response, wishes(constitution))
    total = sum(weights[id_] for id_ in found)
    return sum(weights[id_] for id_, ok in found.items() if ok) / total if total else math.nan


def gold_lengths(of_prompts: Sequence[str], constitution: Constitution, seed: int = 0) -> float:
    """Mean length of the world's own answers that keep every principle.

    In tokens of the sandbox's tokenizer, the end token included. What no principle speaks of is a
    coin flip, as in the student's own answers.
    """
    rng = random.Random(f"lengths {seed}")
    asked = {w.attribute: w.present for w in wishes(constitution).values() if w is not None}
    lengths = [len(prompts.words(answer(prompt, asked, rng))) + 1 for prompt in of_prompts]
    return sum(lengths) / len(lengths)


@dataclass(frozen=True, slots=True)
class PairAccuracy:
    """Preference pairs against gold: `confirmed` of those that gold decides; `ties` apart."""

    confirmed: float
    decided: int
    ties: int


def pair_accuracy(rows: Iterable[Mapping[str, object]], constitution: Constitution) -> PairAccuracy:
    """How many pairs gold confirms: the chosen keeps more of the principles, by weight.

    A response that breaks a veto principle is worse than one that breaks none.

    Args:
        rows: preference pairs in TRL's conversational columns.
        constitution: whose principles, weights and vetoes decide.
    """

    @cache  # a response is in many pairs
    def rank(prompt: str, response: str) -> tuple[bool, float]:
        return gold_rank(prompt, response, constitution)

    right = wrong = ties = 0
    for row in rows:
        prompt, chosen, rejected = (_last_text(row[k]) for k in ("prompt", "chosen", "rejected"))
        better, worse = rank(prompt, chosen), rank(prompt, rejected)
        if better == worse:
            ties += 1
        elif better > worse:
            right += 1
        else:
            wrong += 1
    decided = right + wrong
    return PairAccuracy(right / decided if decided else math.nan, decided, ties)


def gold_pairs(records: Sequence[Record], constitution: Constitution) -> list[tuple[str, str, str]]:
    """(prompt, better, worse) texts: of each record, its best against its worst by gold."""
    found = [(record, best_and_worst(record, constitution)) for record in records]
    return [
        (record.prompt[-1].text, record.responses[ends[0]].text, record.responses[ends[1]].text)
        for record, ends in found
        if ends is not None
    ]


def best_and_worst(record: Record, constitution: Constitution) -> tuple[int, int] | None:
    """Which response gold ranks highest, and which lowest; None where all are equal."""
    prompt = record.prompt[-1].text
    ranks = [gold_rank(prompt, r.text, constitution) for r in record.responses]
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    return (order[-1], order[0]) if ranks[order[-1]] > ranks[order[0]] else None


def gold_rank(prompt: str, response: str, constitution: Constitution) -> tuple[bool, float]:
    """Where gold ranks a response: one that breaks no veto before all that do, then by weight."""
    found = outcomes(prompt, response, wishes(constitution))
    vetoes = {p.id for p in constitution.principles if p.veto}
    clean = all(ok for id_, ok in found.items() if id_ in vetoes)
    return clean, round(gold_score(prompt, response, constitution), 9)


def _last_text(messages: object) -> str:
    assert isinstance(messages, list)
    return str(messages[-1]["content"])


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else math.nan
