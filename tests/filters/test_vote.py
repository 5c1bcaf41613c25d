from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from rlaif.engines.protocol import Generation, Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.filters.vote import vote
from rlaif.records import Chat
from tests.filters.questions import masses, question, says
from tests.label.scripted_judges import make_method

PLAIN, REASONED = make_method("pointwise"), make_method("pointwise", reasoning=True)


def turns(*log_odds: float | None) -> ScriptedEngine:
    """A judge that says another thing at every call."""
    turn = count()
    return ScriptedEngine(score=lambda *_: says(log_odds[next(turn) % len(log_odds)]))


class Sampled(ScriptedEngine):
    """Writes the seed that it was given, and notes how it was to sample."""

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        self.sampling, self.seeds = sampling, list(seeds)
        self._generate = [f"reason {seed}" for seed in seeds]
        return super().generate(chats, sampling, seeds)


def test_a_vote_is_the_mean_log_odds_of_its_voices() -> None:
    engine = turns(3.0, -1.0, 1.0)
    [one, two] = vote([question("a"), question("b")], engine, method=PLAIN, times=3)
    assert (one.log_odds, two.log_odds) == pytest.approx((1.0, 1.0))
    assert engine.usage.requests == 6


def test_a_voice_that_abstains_is_left_out_and_not_counted_as_a_tie() -> None:
    [found] = vote([question()], turns(3.0, None, 1.0), method=PLAIN, times=3)
    assert found.log_odds == pytest.approx(2.0)


def test_where_all_abstain_the_vote_does_with_their_reason() -> None:
    [found] = vote([question()], turns(None), method=PLAIN, times=3)
    assert (found.log_odds, found.reason) == (None, "busy")


def test_reasons_are_sampled_anew_for_every_voice_and_follow_from_the_seed() -> None:
    def seeds(seed: int) -> list[int]:
        engine = Sampled(score=lambda *_: masses(1.0))
        asked = [question("a"), question("b")]
        found = vote(asked, engine, method=REASONED, times=2, temperature=0.7, seed=seed)
        assert engine.sampling.temperature == 0.7
        assert found[0].rationale == "\n\n".join(f"reason {s}" for s in engine.seeds[:2])
        return engine.seeds

    assert len(set(seeds(0))) == 4
    assert seeds(0) == seeds(0) != seeds(1)


def test_a_question_has_the_same_voices_whatever_is_asked_beside_it() -> None:
    alone, beside = (Sampled(score=lambda *_: masses(1.0)) for _ in range(2))
    vote([question("b")], alone, method=REASONED, times=2)
    vote([question("a"), question("b")], beside, method=REASONED, times=2)
    assert beside.seeds[2:] == alone.seeds


def test_a_vote_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="a vote of 0"):
        vote([question()], turns(1.0), method=PLAIN, times=0)
