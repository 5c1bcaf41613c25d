"""Regions that the anchors cover and the prompts do not, and prompts written to fill them.

    prompts → topics → [gaps] → sample → …

A generator is shown prompts of the region and asked for another. It need not be good at that:
what it writes is kept for the gap where it lands, and only there. Beside strata.py, which draws
evenly from what there is; landing.py says what is kept.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaif.cells import Cells, Vectors, fit_cells
from rlaif.engines.protocol import Engine, Sampling
from rlaif.entropy import Evenness, evenness
from rlaif.errors import DataError
from rlaif.label.templates import Template, load_template
from rlaif.prompts.kept_answers import KeptAnswers
from rlaif.prompts.landing import STAGE, Embed, Landing, NewPrompt, Written
from rlaif.prompts.strata import level_for
from rlaif.prompts.topics import NO_VECTOR, to_centre, with_vector
from rlaif.records import Drop, seed_of

_SHOWN = 2000  # characters of an example; one that is a book would leave no room for the others


@dataclass(frozen=True, slots=True)
class Gap:
    """A region that has fewer prompts than it should.

    Attributes:
        cell: its number.
        have: prompts in it.
        wanted: prompts it should have.
        anchors: anchors in it.
    """

    cell: int
    have: int
    wanted: int
    anchors: int

    @property
    def missing(self) -> int:
        """Prompts to write."""
        return self.wanted - self.have


@dataclass(frozen=True, slots=True)
class Filling:
    """How gaps are filled.

    Attributes:
        cells: regions, where none are given.
        evenness: how even the regions shall be in the end: normalised entropy, 0 to 1. It decides
            how many prompts each region should have.
        examples: prompts that a question shows.
        sampling: how an answer is sampled; one a question, whatever its `n`.
        near_copy: the cosine from which on two texts are one.
        reach: a prompt has to be as near to the centre of its region as all but this share of the
            anchors are to theirs.
        calls: questions at most.
        tokens: tokens that may be generated at most; None is any number.
        at_once: questions about one gap in a round at most.
        patience: it ends when so many rounds together bring next to nothing; one round of a weak
            generator may be a few prompts.
        least_rise: of the evenness; below is next to nothing.
        templates: a folder with a `new_prompt.txt` of one's own.
    """

    cells: int = 32
    evenness: float = 0.97
    examples: int = 4
    sampling: Sampling = field(default_factory=Sampling)
    near_copy: float = 0.95
    reach: float = 0.05
    calls: int = 10_000
    tokens: int | None = None
    at_once: int = 32
    patience: int = 3
    least_rise: float = 0.001
    templates: Path | None = None

    def __post_init__(self) -> None:
        for key, low in (("examples", 1), ("calls", 1), ("at_once", 1), ("patience", 1)):
            if getattr(self, key) < low:
                raise DataError("too small", key=key, value=getattr(self, key), mend=f"≥ {low}")
        for key in ("evenness", "near_copy", "reach"):
            if not 0 <= getattr(self, key) <= 1:
                raise DataError("is a share", key=key, value=getattr(self, key), mend="0 to 1")


@dataclass(frozen=True, slots=True)
class Round:
    """One round of questions: how many, what was kept, and how even the prompts are behind it."""

    number: int
    asked: int
    kept: int
    evenness: Evenness
    open_gaps: int


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of it.

    Attributes:
        new: the prompts that were kept.
        rounds: the first is what was there before, with number 0.
        gaps: what was to fill, from before.
        counts: [cells] prompts in each region in the end.
        drops: every answer that was not kept, and every prompt or anchor without an embedding.
        calls, tokens: spent: questions, and tokens generated.
        stopped: why it ended.
    """

    new: tuple[NewPrompt, ...]
    rounds: tuple[Round, ...]
    gaps: tuple[Gap, ...]
    counts: NDArray[np.int64]
    drops: tuple[Drop, ...]
    calls: int
    tokens: int
    stopped: str

    @property
    def unreached(self) -> tuple[int, ...]:
        """Cells of gaps that have no prompt at all in the end."""
        return tuple(gap.cell for gap in self.gaps if not self.counts[gap.cell])


def find_gaps(
    prompt_vectors: Vectors, anchor_vectors: Vectors, cells: Cells, evenness: float = 0.97
) -> list[Gap]:
    """The regions that anchors cover and prompts do not, the emptiest first.

    Every covered region should have the same number of prompts: the lowest at which the covered
    regions together are as even as asked for, with nothing taken away from any.

    Args:
        prompt_vectors: [prompts, width].
        anchor_vectors: [anchors, width].
        cells: the regions.
        evenness: normalised entropy to reach over the covered regions, 0 to 1.

    Raises:
        DataError: no prompts, no anchors, or vectors of another width.
    """
    if not len(anchor_vectors):
        raise DataError("there are no anchors", mend="give texts of all topics that are wanted")
    if not len(prompt_vectors):
        raise DataError("there are no prompts", mend="give at least one")
    have, gold = cells.counts(prompt_vectors), cells.counts(anchor_vectors)
    covered = np.flatnonzero(gold)
    level = level_for(have[covered], evenness)
    found = [Gap(int(c), int(have[c]), level, int(gold[c])) for c in covered if have[c] < level]
    return sorted(found, key=lambda gap: (gap.have, gap.cell))


def fill_gaps(
    prompts: Sequence[str],
    anchors: Sequence[str],
    engine: Engine,
    embed: Embed,
    settings: Filling,
    seed: int,
    cells: Cells | None = None,
    kept: KeptAnswers | None = None,
) -> Filled:
    """Ask for prompts until the gaps are filled, it brings no more, or the budget is spent.

    A question's seed follows from the run's seed, the gap, the round and the turn.

    Args:
        prompts: what is there.
        anchors: texts of all topics that are wanted.
        engine: the generator.
        embed: rlaif.embed.Embedder, or what does the same.
        settings: how.
        seed: the run's.
        cells: the regions; None fits `settings.cells` on the anchors.
        kept: keeps the answers of each round, so that a filling that is killed and called again
            with the same ends as if it had not been; None keeps nothing.

    Raises:
        DataError: no usable prompts or anchors, fewer different anchors than cells, or
            embeddings of another width than the cells.
        RecipeError: the template cannot be used.
        JournalError: answers cannot be kept.
    """
    template = load_template("new_prompt", settings.templates)
    own, gold = _embedded(prompts, embed, "prompt"), _embedded(anchors, embed, "anchor")
    if not gold.texts:
        raise DataError("there are no anchors", mend="give texts of all topics that are wanted")
    cells = cells or fit_cells(gold.vectors, settings.cells, seed)
    gaps = find_gaps(own.vectors, gold.vectors, cells, settings.evenness)
    state = _State(
        gaps,
        _shelves(own, gold, cells, gaps, 2 * settings.examples),
        _landing(own, gold, cells, gaps, settings),
        cells.counts(own.vectors),
        [*own.drops, *gold.drops],
        kept,
    )
    stopped = state.go_on(engine, embed, template, settings, seed)
    if kept is not None:
        kept.finish()
    return Filled(
        tuple(state.new), tuple(state.rounds), tuple(gaps), state.counts, tuple(state.drops),
        state.calls, state.tokens, stopped,
    )  # fmt: skip


class _Texts(NamedTuple):
    """Texts that have an embedding, [texts, width], and a drop for each that has none."""

    texts: list[str]
    vectors: Vectors
    drops: list[Drop]


def _embedded(texts: Sequence[str], embed: Embed, what: str) -> _Texts:
    embedded = embed(texts)
    has = with_vector(embedded.vectors)
    drops = [
        Drop(f"{what} {i}", STAGE, embedded.faults[i] or NO_VECTOR)
        for i in np.flatnonzero(~has).tolist()
    ]
    kept = [text for text, ok in zip(texts, has, strict=True) if ok]
    return _Texts(kept, embedded.vectors[has], drops)


def _landing(
    own: _Texts, gold: _Texts, cells: Cells, gaps: Sequence[Gap], settings: Filling
) -> Landing:
    near = to_centre(gold.vectors, cells.of(gold.vectors), cells)
    return Landing(
        cells,
        {gap.cell: gap.missing for gap in gaps},
        np.concatenate([own.vectors, gold.vectors]),
        float(np.quantile(near, settings.reach)),
        settings.near_copy,
    )


def _shelves(
    own: _Texts, gold: _Texts, cells: Cells, gaps: Sequence[Gap], least: int
) -> dict[int, list[str]]:
    """For each gap what a question may show: the texts that lie in it; if few, its nearest too.

    What was written for a gap is never shown: a generator that reads itself narrows.
    """
    texts, vectors = gold.texts + own.texts, np.concatenate([gold.vectors, own.vectors])
    place = cells.of(vectors)
    found = {}
    for gap in gaps:
        inside = np.flatnonzero(place == gap.cell)
        if len(inside) < least:
            inside = np.argsort(-(vectors @ cells.centres[gap.cell]), kind="stable")[:least]
        found[gap.cell] = list(dict.fromkeys(texts[i][:_SHOWN] for i in inside.tolist()))
    return found


@dataclass(slots=True)
class _State:
    """What has been written and kept so far."""

    gaps: Sequence[Gap]
    shelves: dict[int, list[str]]
    landing: Landing
    counts: NDArray[np.int64]
    drops: list[Drop]
    answers: KeptAnswers | None
    new: list[NewPrompt] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    asked: Counter[int] = field(default_factory=Counter)
    kept: Counter[int] = field(default_factory=Counter)
    calls: int = 0
    tokens: int = 0

    def go_on(
        self, engine: Engine, embed: Embed, template: Template, settings: Filling, seed: int
    ) -> str:
        """Round after round; why it ended."""
        self._note(0, 0, 0, seed)
        while self._open():
            questions = self._questions(settings)
            if not questions:
                return "budget spent"
            number = len(self.rounds)
            written = self._ask(questions, number, engine, template, settings, seed)
            kept, drops = self.landing.take(written, embed)
            self._count(questions, kept, drops)
            self._note(number, len(questions), len(kept), seed)
            if self._stalled(settings):
                return "evenness no longer rises"
        return "gaps filled"

    def _open(self) -> list[int]:
        """The cells of gaps with room, the emptiest first."""
        cells = [gap.cell for gap in self.gaps if self.landing.room[gap.cell] > 0]
        return sorted(cells, key=lambda cell: (self.counts[cell], cell))

    def _questions(self, settings: Filling) -> list[int]:
        """The cells to ask about, a turn of all gaps after another, as far as the budget goes.

        As many for a gap as fill it at the rate at which it has been filled so far.
        """
        turns = {
            cell: min(
                settings.at_once,
                math.ceil(self.landing.room[cell] * (self.asked[cell] + 1) / (self.kept[cell] + 1)),
            )
            for cell in self._open()
        }
        cells = [cell for turn in range(settings.at_once) for cell, n in turns.items() if turn < n]
        left = settings.calls - self.calls
        if settings.tokens is not None:
            left = min(left, (settings.tokens - self.tokens) // settings.sampling.max_tokens)
        return cells[: max(0, left)]

    def _ask(
        self, questions: Sequence[int], number: int, engine: Engine, template: Template,
        settings: Filling, seed: int,
    ) -> list[Written]:  # fmt: skip
        turns: Counter[int] = Counter()
        ids, seeds, chats = list[str](), list[int](), []
        for cell in questions:
            turns[cell] += 1
            ids.append(f"gap {cell}, round {number}, turn {turns[cell]}")
            seeds.append(seed_of(seed, "gap", cell, number, turns[cell]))
            shelf = self.shelves[cell]
            shown = random.Random(seeds[-1]).sample(shelf, min(settings.examples, len(shelf)))
            chats.append((template.message(examples="\n".join(shown)),))
        sampling = Sampling(
            1, settings.sampling.temperature, settings.sampling.top_p,
            settings.sampling.max_tokens, settings.sampling.stop,
        )  # fmt: skip
        if self.answers is None:
            answers = engine.generate(chats, sampling, seeds)
        else:
            answers = self.answers.answer(engine, ids, chats, sampling, seeds)
        self.tokens += sum(r.tokens for answer in answers for r in answer.responses)
        return [
            Written(id_, cell, number, next(iter(answer.responses), None), answer.reason)
            for id_, cell, answer in zip(ids, questions, answers, strict=True)
        ]

    def _count(
        self, questions: Sequence[int], kept: Sequence[NewPrompt], drops: Sequence[Drop]
    ) -> None:
        self.calls += len(questions)
        self.asked.update(questions)
        self.kept.update(one.cell for one in kept)
        self.new += kept
        self.drops += drops
        np.add.at(self.counts, [one.cell for one in kept], 1)

    def _note(self, number: int, asked: int, kept: int, seed: int) -> None:
        even = evenness(self.counts, seed)
        self.rounds.append(Round(number, asked, kept, even, len(self._open())))

    def _stalled(self, settings: Filling) -> bool:
        """Whether the last rounds together have brought next to nothing."""
        plain = [one.evenness.plain for one in self.rounds[-settings.patience - 1 :]]
        return len(plain) > settings.patience and plain[-1] - plain[0] < settings.least_rise
