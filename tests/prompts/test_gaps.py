from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlaif.cells import Cells
from rlaif.embed import Embedded
from rlaif.engines.protocol import Generation, Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.entropy import entropy
from rlaif.errors import DataError
from rlaif.prompts.gaps import Filled, Filling, fill_gaps, find_gaps
from rlaif.records import Chat, Response

TOPICS = ("red", "green", "blue", "grey")
CELLS = Cells(np.eye(len(TOPICS) + 1, dtype=np.float32))  # the last is nobody's
SETTINGS = Filling(evenness=1.0, sampling=Sampling(max_tokens=10), near_copy=0.999999)


def embed(texts: Sequence[str]) -> Embedded:
    """ "red 3" lies in the first cell, a little aside; a number is a place of its own."""
    vectors = np.zeros((len(texts), len(TOPICS) + 1), np.float32)
    for row, text in zip(vectors, texts, strict=True):
        name, _, number = text.partition(" ")
        if name == "nan":
            row[:] = np.nan
        elif name in TOPICS:
            assert number.isascii()
            row[TOPICS.index(name)] = 1
            row[TOPICS.index(name) - 1] = 0.005 * float(number or 0)
            row /= np.linalg.norm(row)
        elif text.strip():
            row[-1] = 1
    faults = tuple(None if text.strip() else "empty text" for text in texts)
    return Embedded(vectors, np.zeros(len(texts), bool), faults)


def texts(topic: str, *numbers: int) -> list[str]:
    return [f"{topic} {n}" for n in numbers]


ANCHORS = [t for topic in TOPICS for t in texts(topic, *range(0, 100, 5))]
PROMPTS = texts("red", 1, 2, 3, 4, 6, 7, 8, 9)


class Writer:
    """Writes a new prompt on the topic of the examples it is shown."""

    def __init__(self) -> None:
        self.number = 90

    def __call__(self, chat: Chat) -> str:
        self.number -= 1
        return f"{topic_of(chat)} {self.number + 0.5}"


def topic_of(chat: Chat) -> str:
    shown = re.findall("|".join(TOPICS), chat[0].text)
    return Counter(shown).most_common(1)[0][0]


def fill(engine: ScriptedEngine, prompts: Sequence[str] = PROMPTS, **changes: object) -> Filled:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    return fill_gaps(prompts, ANCHORS, engine, embed, settings, 0, CELLS)


def test_gaps_are_what_anchors_cover_and_prompts_do_not_the_emptiest_first() -> None:
    prompts = embed([*texts("red", 1, 2, 3, 4), *texts("green", 1), "elsewhere"]).vectors
    gaps = find_gaps(prompts, embed(ANCHORS).vectors, CELLS, evenness=1.0)
    assert [(g.cell, g.have, g.wanted, g.missing, g.anchors) for g in gaps] == [
        (2, 0, 4, 4, 20), (3, 0, 4, 4, 20), (1, 1, 4, 3, 20),
    ]  # fmt: skip


@given(st.lists(st.integers(0, 40), min_size=4, max_size=4).filter(any), st.floats(0.1, 1))
@hypothesis_settings(max_examples=30, deadline=None)
def test_filled_gaps_are_as_even_as_asked_for_and_no_more_is_asked(
    counts: list[int], wanted: float
) -> None:
    prompts = np.repeat(np.eye(5, dtype=np.float32)[:4], counts, axis=0)
    gaps = find_gaps(prompts, embed(ANCHORS).vectors, CELLS, wanted)

    def even(less: int) -> float:
        filled = np.array(counts)
        for gap in gaps:
            filled[gap.cell] = max(gap.have, gap.wanted - less)
        return entropy(filled) / np.log(4)

    assert even(0) >= wanted - 1e-9
    assert not gaps or even(1) < wanted


def test_every_gap_is_filled_and_the_history_says_how() -> None:
    filled = fill(ScriptedEngine(Writer()))
    assert filled.stopped == "gaps filled" and not filled.unreached
    assert filled.counts.tolist() == [8, 8, 8, 8, 0]
    assert Counter(one.cell for one in filled.new) == {1: 8, 2: 8, 3: 8}
    assert all(one.asked == one.cell and one.text not in ANCHORS for one in filled.new)
    assert next((r.number, r.kept, r.open_gaps) for r in filled.rounds) == (0, 0, 3)
    assert filled.rounds[-1].open_gaps == 0
    before, after = filled.rounds[0].evenness.plain, filled.rounds[-1].evenness.plain
    assert before == 0.0 and after == pytest.approx(np.log(4) / np.log(5))
    assert filled.calls == sum(r.asked for r in filled.rounds)
    assert filled.tokens == 2 * filled.calls


def test_a_question_shows_texts_of_the_gap_and_nothing_that_was_written() -> None:
    engine = ScriptedEngine(Writer())
    fill(engine, [*PROMPTS, "green 33"])
    asked = [chat for name, chats in engine.calls for chat in chats if name == "generate"]
    for chat in asked:
        lines = [line for line in chat[0].text.splitlines() if line.startswith(TOPICS)]
        assert len(lines) == SETTINGS.examples and len({line.split()[0] for line in lines}) == 1
        assert set(lines) <= {*ANCHORS, "green 33"}
    assert any("green 33" in chat[0].text for chat in asked)


def test_an_example_that_is_a_book_is_shown_in_part() -> None:
    engine = ScriptedEngine(Writer())
    book = f"green {'0' * 1_000_000}"
    fill_gaps([*PROMPTS, book], ANCHORS, engine, embed, SETTINGS, 0, CELLS)
    longest = max(len(chat[0].text) for _, chats in engine.calls for chat in chats)
    assert 2000 < longest < 2300


def test_a_gap_with_few_texts_shows_its_nearest_from_outside() -> None:
    engine = ScriptedEngine(Writer())
    settings = replace(SETTINGS, calls=1, examples=9)
    fill_gaps(PROMPTS, ["red 0", "green 7"], engine, embed, settings, 0, CELLS)
    [(_, [chat])] = engine.calls
    assert len(re.findall("red|green", chat[0].text)) == 9


BAD = {
    "no": (None, "the script has no answer"),
    "cut": (Generation((Response("green 50.5", 10, "length"),)), "cut off"),
    "empty": ("  \n", "empty text"),
    "marks": ("?! …", "no words"),
    "unicode": ("green \ud800", "not valid Unicode"),
    "nan": ("nan", "no embedding"),
    "nobody's": ("something else", "outside every gap"),
    "full region": ("red 50.5", "outside every gap"),
    "far": ("green 150", "farther from its region than the anchors are"),
    "prompt": ("green 33", "near-copy"),
    "anchor": ("green 50", "near-copy"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_of_no_use_is_dropped_with_its_reason_and_ends_nothing(name: str) -> None:
    answer, reason = BAD[name]
    filled = fill(ScriptedEngine([answer, "blue 0.5"]), [*PROMPTS, "green 33"], calls=4)
    assert next((d.stage, d.reason) for d in filled.drops) == ("gaps", reason)
    assert [one.text for one in filled.new] == ["blue 0.5"]
    assert len(filled.new) + len(filled.drops) == filled.calls == 4


def test_the_same_twice_is_one_prompt_in_a_round_and_in_the_next() -> None:
    filled = fill(ScriptedEngine(["green 0.5"]), patience=2)
    assert [one.text for one in filled.new] == ["green 0.5"]
    assert {d.reason for d in filled.drops} == {"near-copy"}
    assert filled.stopped == "evenness no longer rises"
    assert filled.unreached == (2, 3)


def test_it_goes_on_while_the_last_rounds_together_bring_something() -> None:
    writer, turn = Writer(), iter(range(1000))
    engine = ScriptedEngine(lambda chat: writer(chat) if next(turn) % 3 == 0 else "nothing")
    filled = fill(engine, at_once=1, patience=3, least_rise=0.01)
    plain = [one.evenness.plain for one in filled.rounds]
    rises = [after - before for before, after in zip(plain, plain[3:], strict=False)]
    assert filled.stopped == "evenness no longer rises"
    assert rises[-1] < 0.01 and all(rise >= 0.01 for rise in rises[:-1])
    assert any(after - before < 0.01 for before, after in pairwise(plain[:-3]))


def test_what_lands_in_another_gap_fills_that_one_and_a_full_one_takes_no_more() -> None:
    numbers = iter(range(1000))
    filled = fill(ScriptedEngine(lambda _: f"blue {next(numbers) % 90 + 0.5}"))
    assert Counter(one.cell for one in filled.new) == {2: 8}
    assert any(one.asked != one.cell for one in filled.new)
    assert "gap is full" in {d.reason for d in filled.drops}


def test_the_budget_is_never_overrun_and_is_shared_by_the_gaps() -> None:
    filled = fill(ScriptedEngine(Writer()), calls=7)
    assert (filled.calls, filled.stopped) == (7, "budget spent")
    assert sorted(Counter(one.cell for one in filled.new).values()) == [2, 2, 3]
    filled = fill(ScriptedEngine(Writer()), tokens=35)  # an answer may have 10 tokens, and has 2
    assert filled.tokens <= 35 and filled.calls > 3 and filled.stopped == "budget spent"
    assert fill(ScriptedEngine(Writer()), tokens=9).calls == 0


class Seeded(ScriptedEngine):
    """Writes by its seeds, and notes them."""

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        self.seeds = [*getattr(self, "seeds", []), *seeds]
        self._generate = [
            f"{topic_of(c)} {s % 9000 / 100}" for c, s in zip(chats, seeds, strict=True)
        ]
        self._turn = iter(range(len(chats)))  # type: ignore[assignment]
        return super().generate(chats, sampling, seeds)


def test_a_run_follows_from_its_seed() -> None:
    def run(seed: int) -> tuple[list[int], list[str]]:
        engine = Seeded()
        filled = fill_gaps(PROMPTS, ANCHORS, engine, embed, SETTINGS, seed, CELLS)
        return engine.seeds, [one.text for one in filled.new]

    assert run(3) == run(3) != run(4)
    assert len(set(run(3)[0])) == len(run(3)[0])


def test_texts_without_an_embedding_are_kept_aside() -> None:
    filled = fill_gaps(
        [*PROMPTS, " "], [*ANCHORS, ""], ScriptedEngine(Writer()), embed, SETTINGS, 0, CELLS
    )
    assert [(d.id, d.reason) for d in filled.drops] == [
        ("prompt 8", "empty text"), ("anchor 80", "empty text"),
    ]  # fmt: skip


def test_a_template_of_ones_own_is_asked(tmp_path: Path) -> None:
    (tmp_path / "new_prompt.txt").write_text("Another, please:\n{{ examples }}\n")
    engine = ScriptedEngine(Writer())
    fill(engine, templates=tmp_path)
    assert engine.calls[0][1][0][0].text.startswith("Another, please:")


def test_cells_are_fitted_on_the_anchors() -> None:
    filled = fill_gaps(
        PROMPTS, ANCHORS, ScriptedEngine(Writer()), embed, replace(SETTINGS, cells=4), 0
    )
    assert sorted(filled.counts.tolist()) == [8, 8, 8, 8]


def test_what_cannot_be_filled_is_one_line() -> None:
    engine = ScriptedEngine(Writer())
    with pytest.raises(DataError, match="there are no anchors"):
        fill_gaps(PROMPTS, ["", " "], engine, embed, SETTINGS, 0, CELLS)
    with pytest.raises(DataError, match="there are no prompts"):
        fill_gaps([], ANCHORS, engine, embed, SETTINGS, 0, CELLS)
    with pytest.raises(DataError, match="more cells than different texts"):
        fill_gaps(PROMPTS, ["red 1", "red 2"], engine, embed, SETTINGS, 0)
    with pytest.raises(DataError, match="the cells were made at width 2"):
        fill_gaps(PROMPTS, ANCHORS, engine, embed, SETTINGS, 0, Cells(np.eye(2, dtype=np.float32)))
    with pytest.raises(DataError, match=r"examples: too small \(got 0\)"):
        Filling(examples=0)
    with pytest.raises(DataError, match=r"reach: is a share \(got 2\)"):
        Filling(reach=2)


def test_prompts_that_are_even_already_ask_nothing() -> None:
    engine = ScriptedEngine(Writer())
    filled = fill(engine, [t for topic in TOPICS for t in texts(topic, 1, 2)])
    assert (filled.calls, filled.gaps, filled.stopped) == (0, (), "gaps filled")
    assert not engine.calls
