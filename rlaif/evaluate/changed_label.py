"""One record's labels under two constitutions: what changed, by how much, and which edit did it.

Called by constitution_diff.py, which counts; here is what a person is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlaif.constitution import Constitution
from rlaif.label.calibrate import Calibration
from rlaif.label.method import Mode
from rlaif.label.pick import pick_pairs, pick_sft
from rlaif.label.scores import score_record
from rlaif.label.templates import prompt_text
from rlaif.recipe import Pick as Settings
from rlaif.records import Record

Pair = tuple[int, int]
"""The indices of two responses: chosen and rejected, or any two that are compared."""


@dataclass(frozen=True, slots=True)
class Picking:
    """How rows are picked: what is the same under both constitutions.

    Attributes:
        settings: the recipe's `pick` section.
        mode: how the judge was asked.
        clip: probabilities are kept this far from 0 and 1.
        calibration: of the judge, where the recipe has a gate that fits one.
    """

    settings: Settings
    mode: Mode
    clip: float
    calibration: Calibration | None = None


@dataclass(slots=True)
class Label:
    """What a record gives: an SFT pick and pairs, with margins in nats, or why it gives none."""

    pick: int | None = None
    pick_margin: float = 0.0
    pairs: dict[Pair, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A record with its verdicts under one constitution, and the label they give."""

    record: Record
    constitution: Constitution
    label: Label


@dataclass(frozen=True, slots=True)
class Change:
    """A record whose label changes, for people.

    Attributes:
        prompt: as a judge reads it.
        old, new: what was chosen and what now is, or why nothing is.
        swing: by how many nats the comparison of the two turned; where there is only one, the
            margin that came or went.
        why: by how many nats each principle, weight and all, moved that comparison towards `new`,
            by its id, the widest first.
    """

    prompt: str
    old: str
    new: str
    swing: float
    why: tuple[tuple[str, float], ...] = ()


def labelled(records: Sequence[Record], constitution: Constitution, how: Picking) -> list[Judged]:
    """Each record with the label that its verdicts under the constitution give.

    Raises:
        RecipeError: a principle has a veto, in pairwise mode.
    """
    labels = {record.id: Label() for record in records}
    settings, mode, clip = how.settings, how.mode, how.clip
    picks, dropped = pick_sft(records, constitution, settings, mode=mode, clip=clip, judge="")
    pairs, _ = pick_pairs(
        records, constitution, settings, mode=mode, clip=clip, judge="", calibration=how.calibration
    )
    for row in picks:
        label = labels[row["record_id"]]
        label.pick, label.pick_margin = row["response_index"], row["score_margin"]
    for row in pairs:
        pair = (row["chosen_index"], row["rejected_index"])
        labels[row["record_id"]].pairs[pair] = row["score_margin"]
    for drop in dropped:
        labels[drop.id].reason = drop.reason
    return [Judged(record, constitution, labels[record.id]) for record in records]


def telling_change(was: Judged, now: Judged, how: Picking) -> Change:
    """The widest change of a record's label: of the pick or, where that stayed, of a pair."""
    old, new = was.label, now.label
    prompt = prompt_text(was.record.prompt)
    turned = {(j, i) for i, j in old.pairs} & new.pairs.keys()
    if old.pick != new.pick and old.pick is not None and new.pick is not None:
        return _turn(prompt, was, now, (new.pick, old.pick), how)
    if turned:
        widest = max(turned, key=lambda pair: new.pairs[pair] + old.pairs[pair[::-1]])
        return _turn(prompt, was, now, widest, how)
    if old.pick != new.pick:
        return Change(prompt, _pick(was), _pick(now), max(old.pick_margin, new.pick_margin))
    one, two = ({p: x.pairs[p] for p in x.pairs.keys() - y.pairs.keys()}
                for x, y in ((old, new), (new, old)))  # fmt: skip
    return Change(prompt, _pair(was, one), _pair(now, two), max([*one.values(), *two.values()]))


def _turn(prompt: str, was: Judged, now: Judged, pair: Pair, how: Picking) -> Change:
    """The first of the pair is now the better one, and the second was."""
    (before, old_parts), (after, new_parts) = (_margin(x, pair, how) for x in (was, now))
    moved = [(i, new_parts.get(i, 0.0) - old_parts.get(i, 0.0)) for i in old_parts | new_parts]
    why = sorted((part for part in moved if part[1]), key=lambda part: -abs(part[1]))
    old, new = (was.record.responses[i].text for i in pair[::-1])
    return Change(prompt, old, new, after - before, tuple(why))


def _margin(judged: Judged, pair: Pair, how: Picking) -> tuple[float, dict[str, float]]:
    """The pair's margin in nats, vetoes included, and each principle's weighted part."""
    scores = score_record(
        judged.record, judged.constitution, mode=how.mode, clip=how.clip, min_decided=0.0
    )
    margin = scores.margins[pair]
    weights = {p.id: p.weight for p in judged.constitution.principles}
    parts = {id_: gap * weights[id_] for id_, gap in margin.by_principle.items()}
    return margin.log_odds or 0.0, parts


def _pick(judged: Judged) -> str:
    index = judged.label.pick
    return f"({judged.label.reason})" if index is None else judged.record.responses[index].text


def _pair(judged: Judged, pairs: Mapping[Pair, float]) -> str:
    if not pairs:
        return "(no such pair)"
    chosen, rejected = max(pairs, key=pairs.__getitem__)
    texts = judged.record.responses
    return f"{texts[chosen].text} — rather than — {texts[rejected].text}"
