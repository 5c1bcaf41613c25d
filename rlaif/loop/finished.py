"""Which stages of a loop are finished, and whether what they made is still whole.

    a stage's inputs (depends.py) → RUN/finished/<label>.json

The loop itself reads no model and no row. It skips a stage whose record still fits and whose output
is still whole, and refuses to start where a changed recipe would change what is finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.errors import RecipeError
from rlaif.journal import file_sha256
from rlaif.loop.places import LoopFolder, figures_file
from rlaif.manifest import Manifest, changes
from rlaif.records import fingerprint
from rlaif.run_folder import RunFolder

STAGES = ("seed", "prompts", "sample", "judge", "filter", "sft", "dpo", "reward", "evaluate")
"""All stages, in the order of a round; "seed" comes once, before the first."""
TRAINING = ("sft", "dpo", "reward")

_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "prompts": ("gaps",),
    "sample": ("prompts", "samples", "revised"),
    "judge": ("verdicts", "revised", "picked", "sft", "pairs"),
    "filter": ("reviewed", "sft", "pairs"),
    "evaluate": ("evaluate",),
}
"""The data stages that each stage of a loop writes, where a recipe has them."""


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """A stage of a round. Labels sort in the order in which stages run.

    Attributes:
        round: its number; -1 for what comes before the first.
        place: the stage's place in `STAGES`.
    """

    round: int
    place: int

    @classmethod
    def of(cls, round_: int, stage: str) -> Label:
        """The label of a stage by its name."""
        return cls(round_, STAGES.index(stage))

    @classmethod
    def read(cls, text: str) -> Label:
        """A label as `str` gives it, or as a user writes it: "1/judge", or "judge" for round 0.

        Raises:
            RecipeError: no such stage.
        """
        number, _, stage = text.replace("-", "/", 1).rpartition("/")
        if stage not in STAGES or not (number or "0").isdecimal():
            raise RecipeError(
                "no such stage", key="--restart-from", value=text,
                mend=f"give ROUND/STAGE, where a stage is one of {', '.join(STAGES)}",
            )  # fmt: skip
        return cls.of(-1 if stage == "seed" else int(number or 0), stage)

    @property
    def stage(self) -> str:
        """The stage's name."""
        return STAGES[self.place]

    def __str__(self) -> str:
        return self.stage if self.round < 0 else f"{self.round:02d}-{self.stage}"


@dataclass(frozen=True, slots=True)
class Finished:
    """The records of a loop's finished stages.

    Args:
        folder: the loop's.
    """

    folder: LoopFolder

    def holds(self, label: Label, depends: Mapping[str, Any], file: Path) -> bool:
        """Whether a stage was finished, from the same.

        Args:
            label: which.
            depends: what it would be made of now.
            file: the recipe's, for the error.

        Raises:
            RecipeError: it was finished from something else; names the differences.
        """
        record = self._read(label)
        if record is None:
            return False
        if record["fingerprint"] == fingerprint(dict(depends)):
            return True
        changed = "; ".join(changes(record["depends"], depends))
        again = str(label).replace("-", "/", 1)
        raise RecipeError(
            f"would change {label}, which is finished: {changed}", file=file,
            mend=f"undo that, or do it again on purpose: --restart-from {again}",
        )  # fmt: skip

    def key(self, label: Label) -> str | None:
        """The fingerprint of what a finished stage was made of."""
        record = self._read(label)
        return None if record is None else str(record["fingerprint"])

    def write(self, label: Label, depends: Mapping[str, Any]) -> None:
        """Record that a stage is finished."""
        record = {"fingerprint": fingerprint(dict(depends)), "depends": dict(depends)}
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        self.folder.run.write_text(self.folder.finished(str(label)), text)

    def forget_from(self, first: Label) -> None:
        """This stage and all behind it are to be done again; the last goes first."""
        for label in reversed(self.labels()):
            if label >= first:
                self.folder.finished(str(label)).unlink(missing_ok=True)

    def labels(self) -> list[Label]:
        """The finished stages, in order."""
        return sorted(Label.read(p.stem) for p in (self.folder.root / "finished").glob("*.json"))

    def _read(self, label: Label) -> dict[str, Any] | None:
        try:
            record = json.loads(self.folder.finished(str(label)).read_bytes())
            return record if {"fingerprint", "depends"} <= record.keys() else None
        except (OSError, ValueError, AttributeError):
            return None


def damaged(run: RunFolder, stage: str) -> str | None:
    """What is not whole of a finished stage's output in its folder; None where all is.

    Args:
        run: the round's folder, or the seed's.
        stage: its name.
    """
    if stage in (*TRAINING, "seed"):
        return _damaged_model(run, "sft" if stage == "seed" else stage)
    for name in _OUTPUTS[stage]:
        for manifest_file in sorted(run.manifests(name).rglob("*.json")):
            if (fault := _damaged_shard(run, manifest_file)) is not None:
                return fault
    if stage == "sample" and not any(run.manifests("samples").glob("*.json")):
        return "there are no samples"
    if stage == "judge" and not (run.root / "judge" / "asked.json").is_file():
        return "there are no verdicts"
    if stage == "evaluate" and not figures_file(run).is_file():
        return "there are no figures"
    return None


def _damaged_shard(run: RunFolder, manifest_file: Path) -> str | None:
    place = manifest_file.relative_to(run.root / "manifests").with_suffix(".parquet")
    manifest = Manifest.read(manifest_file)
    if manifest is None or file_sha256(run.root / "data" / place) != manifest.sha256:
        return f"{place} is not what was written"
    return None


def _damaged_model(run: RunFolder, stage: str) -> str | None:
    try:
        made = json.loads((run.manifests("models") / f"{stage}.json").read_bytes())
        sizes: Sequence[tuple[str, int]] = [(n, f["bytes"]) for n, f in made["weights"].items()]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return f"{stage} has no manifest"
    for name, size in sizes:
        path = run.model(stage) / "final" / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{path.relative_to(run.root)} is not what was written"
    return None
