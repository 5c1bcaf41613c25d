"""A filling that is killed and called again asks only what it had not asked, and ends the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlaif.engines.protocol import Generation, Sampling
from rlaif.prompts.gaps import Filled, fill_gaps
from rlaif.prompts.kept_answers import KeptAnswers
from rlaif.records import Chat, Response
from rlaif.run_folder import RunFolder
from tests.prompts.test_gaps import ANCHORS, CELLS, PROMPTS, SETTINGS, TOPICS, Seeded, embed

SLOW = replace(SETTINGS, at_once=2)
"""Two questions a gap in a round, so that there are several rounds."""


class Killed(BaseException):
    """Ends a process as a signal does: nothing takes it for an error."""


class Mortal(Seeded):
    """Answers so many rounds, and is killed in the next."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.left = rounds

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        if not self.left:
            raise Killed
        self.left -= 1
        return super().generate(chats, sampling, seeds)


def fill(engine: Seeded, root: Path | None, seed: int = 0) -> Filled:
    kept = None if root is None else KeptAnswers(RunFolder(root).create())
    return fill_gaps(PROMPTS, ANCHORS, engine, embed, SLOW, seed, CELLS, kept)


def same(one: Filled, two: Filled) -> bool:
    return all(
        getattr(one, name) == getattr(two, name)
        for name in ("new", "rounds", "drops", "calls", "tokens", "stopped")
    )


def test_killed_and_called_again_it_asks_nothing_twice_and_ends_the_same(tmp_path: Path) -> None:
    undisturbed = fill(whole := Seeded(), None)
    assert len(undisturbed.rounds) > 5
    first, second = Mortal(1), Mortal(2)
    for engine in (first, second):
        with pytest.raises(Killed):
            fill(engine, tmp_path)
    third = Seeded()
    assert same(fill(third, tmp_path), undisturbed)
    assert first.seeds + second.seeds + third.seeds == whole.seeds
    done = Mortal(0)
    assert same(fill(done, tmp_path), undisturbed), "all is kept"


def test_other_questions_are_asked_anew_and_rounds_beyond_the_last_are_gone(
    tmp_path: Path,
) -> None:
    fill(Seeded(), tmp_path, seed=1)
    shards = RunFolder(tmp_path).data("gaps")
    stray = shards / "00099.parquet"
    stray.write_bytes((shards / "00000.parquet").read_bytes())
    other = fill(engine := Seeded(), tmp_path, seed=2)
    assert len(engine.seeds) == other.calls
    assert not stray.exists() and len(list(shards.iterdir())) == len(other.rounds) - 1


def test_an_answer_that_there_is_not_is_kept_with_its_reason(tmp_path: Path) -> None:
    class Failing(Seeded):
        def generate(
            self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
        ) -> list[Generation]:
            return [Generation((), "refused"), Generation((Response("\ud800", 1, "length"),))] + [
                Generation((), "refused") for _ in chats[2:]
            ]

    one = fill(Failing(), tmp_path)
    two = fill(Mortal(0), tmp_path)
    assert same(one, two)
    assert {drop.reason for drop in two.drops} == {"refused", "cut off"}


def test_where_there_is_no_gap_nothing_is_asked_and_nothing_is_left(tmp_path: Path) -> None:
    even = [f"{topic} {n}" for topic in TOPICS for n in (1, 2)]
    kept = KeptAnswers(RunFolder(tmp_path).create())
    filled = fill_gaps(even, ANCHORS, Mortal(0), embed, SLOW, 0, CELLS, kept)
    assert filled.stopped == "gaps filled" and filled.calls == 0
    assert not list(RunFolder(tmp_path).data("gaps").glob("*"))
