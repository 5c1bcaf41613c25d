"""Critique and revision: a model finds what is wrong with a response, and mends it.

    sample → (revise) → judge → pick

Constitutional AI, section 3.1 (Bai et al. 2022, arXiv 2212.08073): critique under a principle that
is drawn at random, revise, and again with another principle. Unlike there, nothing takes a revision
to be better than its draft: each is one more response of the record, and the judge decides. What
came of every try is in the record's meta, under `REVISIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rlaif.constitution import Principle
from rlaif.engines.protocol import Engine, Generation, Sampling
from rlaif.label.templates import Template, load_template, prompt_text
from rlaif.recipe import Revise as Settings
from rlaif.records import Chat, Drop, Record, Response, seed_of

REVISIONS = "revisions"
"""In a record's meta, a list with an object for each try: `draft`, the index of the response that
was to be revised; `round`, from 1; `principle`, its fingerprint; `critique`, or null; `response`,
the index of the revision, or null; `reason`, why there is none, or null."""


@dataclass(frozen=True, slots=True)
class Revising:
    """How responses are revised: the questions, how their answers are sampled, how often."""

    critique: Template
    revise: Template
    critique_sampling: Sampling
    sampling: Sampling
    rounds: int

    @classmethod
    def load(cls, settings: Settings, templates: Path | None) -> Self:
        """What a recipe's `revise` section describes.

        Raises:
            RecipeError: a template cannot be used.
        """
        heat, top_p = settings.temperature, settings.top_p
        return cls(
            load_template("critique", templates),
            load_template("revise", templates),
            Sampling(1, heat, top_p, settings.max_critique_tokens),
            Sampling(1, heat, top_p, settings.max_tokens, settings.stop),
            settings.rounds,
        )


@dataclass(frozen=True, slots=True)
class _Try:
    """One turn of one sampled response: which record, response and draft of it, under what."""

    place: int
    sampled: int
    draft: int
    principle: Principle
    seed: int


_Answer = tuple[Response | None, str, str]
"""What a model wrote; or None, the reason, and the engine's own words for it."""


def revise(
    records: Sequence[Record],
    engine: Engine,
    principles: Sequence[Principle],
    method: Revising,
    seed: int,
) -> tuple[list[Record], list[Drop]]:
    """Each record with revisions of its responses added behind them, round by round.

    A later round starts from the revision of the one before, or from the draft where that gave
    none. A revision that is empty, cut off or, but for white space, a text that the record has
    already, is not added; the draft stays whatever happens.

    Args:
        records: with responses; verdicts that they have still hold.
        engine: what criticises and revises.
        principles: drawn from, all with equal probability.
        method: how it is asked.
        seed: the run's seed.

    Returns:
        All the records, in order, and a drop of stage "revise" for each try that failed.
    """
    made = list(records)
    drops: list[Drop] = []
    latest = {(n, i): i for n, r in enumerate(made) for i in range(len(r.responses))}
    for turn in range(method.rounds):
        tries = [
            _Try(n, i, draft, *_draw(principles, seed, made[n].id, i, turn))
            for (n, i), draft in latest.items()
        ]
        for attempt, critique, revision in _ask(tries, made, engine, method):
            record = made[attempt.place]
            response, reason, detail = _checked(revision, record)
            entry = {
                "draft": attempt.draft,
                "round": turn + 1,
                "principle": attempt.principle.fingerprint,
                "critique": critique,
                "response": len(record.responses) if response else None,
                "reason": reason or None,
            }
            made[attempt.place] = _with(record, response, entry)
            if response:
                latest[attempt.place, attempt.sampled] = len(record.responses)
            else:
                where = f"response {attempt.draft}, round {turn + 1}"
                drops.append(
                    Drop(record.id, "revise", reason, f"{where}: {detail}" if detail else where)
                )
    return made, drops


def _draw(
    principles: Sequence[Principle], seed: int, id_: str, sampled: int, turn: int
) -> tuple[Principle, int]:
    """The principle of a turn, and the seed of what is written in it."""
    drawn = seed_of(seed, id_, sampled, turn)
    return principles[drawn % len(principles)], seed_of(seed, id_, sampled, turn, "revise")


def _ask(
    tries: Sequence[_Try], records: Sequence[Record], engine: Engine, method: Revising
) -> list[tuple[_Try, str | None, _Answer]]:
    """Each try with its critique, if one could be had, and what came of it; two calls in all."""
    asked = [_question(method.critique, t.principle.critique, t, records[t.place]) for t in tries]
    found = _written(asked, engine, method.critique_sampling, [t.seed for t in tries], "critique")
    critiques = [answer[0].text.strip() if answer[0] else None for answer in found]
    able = [(t, c) for t, c in zip(tries, critiques, strict=True) if c is not None]
    asked = [
        _question(method.revise, t.principle.revision, t, records[t.place], critique=c)
        for t, c in able
    ]
    revised = iter(_written(asked, engine, method.sampling, [t.seed for t, _ in able], "revision"))
    return [
        (t, critique, failed if critique is None else next(revised))
        for t, critique, failed in zip(tries, critiques, found, strict=True)
    ]


def _question(
    template: Template, own: str | None, attempt: _Try, record: Record, **more: str
) -> Chat:
    asked = template if own is None else template.asking(own)
    message = asked.message(
        prompt=prompt_text(record.prompt),
        response=record.responses[attempt.draft].text,
        principle=attempt.principle.text,
        **more,
    )
    return (message,)


def _written(
    chats: Sequence[Chat], engine: Engine, sampling: Sampling, seeds: Sequence[int], what: str
) -> list[_Answer]:
    if not chats:
        return []
    return [_read(g, what) for g in engine.generate(chats, sampling, seeds)]


def _read(generation: Generation, what: str) -> _Answer:
    if generation.reason is not None or not generation.responses:
        return None, f"no {what}", generation.reason or "no response"
    response = generation.responses[0]
    if response.finish == "length":
        return None, f"{what} cut off", ""
    return (response, "", "") if response.text.strip() else (None, f"empty {what}", "")


def _checked(answer: _Answer, record: Record) -> _Answer:
    """The answer, unless the record has that text already."""
    response = answer[0]
    if response is not None:
        words = response.text.split()
        for i, known in enumerate(record.responses):
            if known.text.split() == words:
                return None, "identical revision", f"the text of response {i}"
    return answer


def _with(record: Record, response: Response | None, entry: dict[str, Any]) -> Record:
    responses = record.responses if response is None else (*record.responses, response)
    told = [*record.meta.get(REVISIONS, ()), entry]
    return record.with_(responses=responses, meta={**record.meta, REVISIONS: told})
