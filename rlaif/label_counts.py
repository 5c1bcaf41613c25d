"""What labelling made of a run, in counts: read from the stages' manifests, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlaif.journal import Stage
from rlaif.stages import Verdicts


@dataclass(frozen=True, slots=True)
class Labelled:
    """What labelling made, in counts.

    Attributes:
        prompts: usable prompts.
        responses: sampled responses, and revisions of them.
        verdicts: what the judge was asked.
        abstentions: verdicts without a label.
        picks: rows to fine-tune on.
        pairs: preference pairs.
        dropped: rows kept aside, by stage and reason.
        judged: ids of the principles that this call put to the judge.
    """

    prompts: int
    responses: int
    verdicts: int
    abstentions: int
    picks: int
    pairs: int
    dropped: dict[str, dict[str, int]]
    judged: tuple[str, ...]


def count(
    flow: Sequence[Stage],
    verdicts: Verdicts,
    picks: dict[str, Stage],
    asked: tuple[str, ...],
) -> Labelled:
    """The counts of a run that is labelled.

    Args:
        flow: its stages from the prompts on; the third is what was judged.
        verdicts: on it.
        picks: "sft" and "pairs" as they are trained on.
        asked: ids of the principles that were just judged.
    """
    prompts, _, judged, *_ = flow
    # Shard by shard: a run may be larger than the memory.
    responses = sum(_responses(judged, shard) for shard in judged.shards())
    labels = [(_rows(s), _abstentions(s)) for s in verdicts.stages.values()]
    return Labelled(
        prompts=_rows(prompts),
        responses=responses,
        verdicts=sum(rows for rows, _ in labels),
        abstentions=sum(abstained for _, abstained in labels),
        picks=_rows(picks["sft"]),
        pairs=_rows(picks["pairs"]),
        dropped=_dropped(flow),
        judged=asked,
    )


def _dropped(stages: Iterable[Stage]) -> dict[str, dict[str, int]]:
    counts = {
        stage.name: sum((Counter(stage.manifest(i).dropped) for i in stage.shards()), Counter())
        for stage in stages
    }
    return {name: dict(sorted(count.items())) for name, count in counts.items() if count}


def _responses(samples: Stage, shard: int) -> int:
    return sum(len(row) for row in samples.read(shard)["responses"])


def _abstentions(stage: Stage) -> int:
    return sum(int(stage.read(shard)["log_odds"].null_count) for shard in stage.shards())


def _rows(stage: Stage) -> int:
    return sum(stage.manifest(shard).rows for shard in stage.shards())
