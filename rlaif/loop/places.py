"""Where everything of a loop lies; each round is an ordinary run folder of its own.

RUN/recipe.yaml, constitution.yaml   what was run
RUN/loop.json                        the rounds' figures, why it stopped, which round is best
RUN/seed/                            a run folder: what is taught before the first round
RUN/judgements/                      a run folder: verdicts, right over wrong, for every DPO
RUN/rounds/00/, 01/, …               a run folder a round, with figures.json
RUN/rounds/01.rolled-back-0/         an attempt that failed its checks
RUN/finished/00-sample.json, …       what each finished stage was made of
RUN/cost.jsonl, estimate.json        what was spent, and what was foreseen
RUN/said/00-sample.txt, …            what the stages' processes printed
RUN/checked.txt                      the `train` blocks that were found to be in order
RUN/best/                            the best round's model
RUN/embeddings/, engines/            what the rounds share: they link here
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlaif.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class LoopFolder:
    """The places in a loop's folder. Making one touches no disk."""

    root: Path

    @property
    def run(self) -> RunFolder:
        """The folder itself, with its lock and its writers."""
        return RunFolder(self.root)

    @property
    def state(self) -> Path:
        """The loop's state, as JSON."""
        return self.root / "loop.json"

    @property
    def cost(self) -> Path:
        """What was spent: one JSON object a line."""
        return self.root / "cost.jsonl"

    @property
    def estimate(self) -> Path:
        """What `rlaif estimate` foresaw."""
        return self.root / "estimate.json"

    @property
    def checked(self) -> Path:
        """The fingerprint of the `train` blocks that were found to be in order."""
        return self.root / "checked.txt"

    @property
    def best(self) -> Path:
        """The best round's model."""
        return self.root / "best"

    def share(self, run: RunFolder, names: Iterable[str] = ("embeddings", "engines")) -> None:
        """Give a run folder below this one what all of them have in common.

        That is embeddings of the same anchors, and what engines keep: a cap on what is spent is one
        over all rounds, their other attempts and the probe of an estimate.
        """
        run.root.mkdir(parents=True, exist_ok=True)
        for name in names:
            shared, link = self.root / name, run.root / name
            shared.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(os.path.relpath(shared, run.root))

    @property
    def seed(self) -> RunFolder:
        """What is taught before the first round."""
        return RunFolder(self.root / "seed")

    @property
    def judgements(self) -> RunFolder:
        """What every DPO learns about judging: `data/judgements`, in the form of pairs."""
        return RunFolder(self.root / "judgements")

    def round(self, number: int) -> RunFolder:
        """A round's run folder."""
        return RunFolder(self.root / "rounds" / f"{number:02d}")

    def rolled_back(self, number: int, attempt: int) -> Path:
        """Where an attempt at a round goes that failed its checks."""
        return self.root / "rounds" / f"{number:02d}.rolled-back-{attempt}"

    def finished(self, label: str) -> Path:
        """The record of a finished stage, by its label ("00-sample")."""
        return self.root / "finished" / f"{label}.json"

    def said(self, label: str) -> Path:
        """What a stage's processes printed."""
        return self.root / "said" / f"{label}.txt"


def figures_file(run: RunFolder) -> Path:
    """A round's figures."""
    return run.root / "figures.json"
