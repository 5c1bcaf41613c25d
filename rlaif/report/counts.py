"""How many rows each stage kept and dropped, and why: from the manifests alone.

manifests/<stage>/NNNNN.json → [counts] → page.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.report.figures import Round
from rlaif.report.rows import places, stage_label
from rlaif.report.shards import manifests
from rlaif.run_folder import RunFolder


class Passed(NamedTuple):
    """A stage that rows went through: how many stayed, and how many went, by reason."""

    stage: str
    kept: int
    dropped: Mapping[str, int]
    there: bool

    @property
    def gone(self) -> int:
        """Rows dropped, for whatever reason."""
        return sum(self.dropped.values())


REVISED = "prompts with revisions"
_NAMES = {
    "prompts": "prompts", "samples": "prompts with responses", "revised": REVISED,
    "pairs": "preference pairs", "sft": "picks to imitate",
}  # fmt: skip


def passed(rounds: Sequence[Round], recipe: Mapping[str, Any]) -> list[Passed]:
    """Every stage of labelling, in order, summed over the rounds."""
    flow = [("prompts", "prompts"), ("samples", "prompts with responses")]
    if recipe.get("revise") is not None:
        flow.append(("revised", REVISED))
    for name in ("sft", "pairs"):
        first, *later = places(recipe, name)
        flow.append((first, _NAMES[name]))
        flow += [(s, f"{_NAMES[name]}, after the {stage_label(s, recipe)}") for s in later]
    return [_summed(rounds, stage, label) for stage, label in flow]


def _summed(rounds: Sequence[Round], stage: str, label: str) -> Passed:
    kept, dropped, there = 0, Counter[str](), False
    for one in rounds:
        for manifest in manifests(one.run, stage).values():
            there = True
            kept += manifest.rows
            dropped.update(manifest.dropped)
    return Passed(label, kept, dict(dropped.most_common()), there)


class Stored(NamedTuple):
    """A stage's data on disk."""

    stage: str
    shards: int
    rows: int
    bytes: int
    digest: str


def stored(run: RunFolder, stages: Sequence[str]) -> list[Stored]:
    """What the finished shards of these stages hold; a digest is of the shards' digests."""
    from rlaif.records import fingerprint

    found = []
    for stage in stages:
        shards = list(manifests(run, stage).values())
        if shards:
            digest = fingerprint([shard.sha256 for shard in shards])
            rows, size = sum(s.rows for s in shards), sum(s.bytes for s in shards)
            found.append(Stored(stage, len(shards), rows, size, digest))
    return found
