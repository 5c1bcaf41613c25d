"""A generator's answers to rounds of questions, kept: a filling that is killed asks none twice.

All else of a filling follows from its inputs, so that this is all it has to keep. Under gaps.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlaif.engines.protocol import Engine, Generation, Sampling
from rlaif.journal import Stage
from rlaif.records import Chat, chat_to_json, fingerprint
from rlaif.run_folder import RunFolder
from rlaif.tables import ANSWERS, answers_from_table, answers_to_table

STAGE = "gaps"


@dataclass(slots=True)
class KeptAnswers:
    """The answers in a run folder, a shard a round; those that hold are read and not asked for.

    Args:
        run: the run folder, locked by whoever calls.
    """

    run: RunFolder
    _rounds: int = field(default=0, init=False)

    def answer(
        self,
        engine: Engine,
        ids: Sequence[str],
        chats: Sequence[Chat],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[Generation]:
        """The answers to the next round's questions, one each.

        Raises:
            JournalError: they cannot be read or written.
        """
        stage, shard = self._stage, self._rounds
        asked = [[chat_to_json(chat), seed] for chat, seed in zip(chats, seeds, strict=True)]
        depends = {
            "questions": fingerprint(asked),
            "sampling": sampling.as_dict(),
            "engine": dict(engine.identity),
        }
        if not stage.done(shard, depends):
            start = time.perf_counter()
            made = answers_to_table(ids, engine.generate(chats, sampling, seeds))
            stage.write(shard, depends, made)
            seconds = round(time.perf_counter() - start, 3)
            self.run.log("shard", stage=STAGE, shard=shard, rows=len(ids), seconds=seconds)
        self._rounds += 1
        return answers_from_table(stage.read(shard))

    def finish(self) -> None:
        """Remove the rounds of an earlier filling that went on for longer."""
        self._stage.finish(self._rounds)

    @property
    def _stage(self) -> Stage:
        return Stage(self.run, STAGE, ANSWERS)
