"""What an edit of a constitution does to labels, before anything is trained on them.

    records judged under OLD, the same under NEW → picks of both → Diff

Plain functions, shard by shard. run_diff.py finds the verdicts of a run, changed_label.py says what
is shown of a record, and constitution_diff_report.py prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rlaif.constitution import Constitution, Principle
from rlaif.evaluate.changed_label import Change, Pair, Picking, labelled, telling_change
from rlaif.records import Record, Verdict

SAME, OTHER, TURNED, GONE, NEW = "same", "other response", "turned round", "gone", "new"
ONE_SIDED = "decided under one alone"


@dataclass(slots=True)
class Diff:
    """Labels under two constitutions; `update` adds up shards.

    Attributes:
        records: how many were compared.
        verdicts: for each principle that was reworded, by id: verdicts that are the same in
            sign, that turned round, and that only one wording has.
        picks: SFT picks: same, other response, gone, new.
        pairs: preference pairs: same, turned round, gone, new.
        relabelled: records whose pick or pairs changed in any way.
        examples: the widest changes, the widest first.
    """

    records: int = 0
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    picks: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    relabelled: int = 0
    examples: list[Change] = field(default_factory=list)

    def update(self, other: Diff, most: int) -> None:
        """Add another shard's figures, and keep the `most` widest changes of both."""
        self.records += other.records
        for id_, counts in other.verdicts.items():
            self.verdicts.setdefault(id_, Counter()).update(counts)
        self.picks.update(other.picks)
        self.pairs.update(other.pairs)
        self.relabelled += other.relabelled
        widest = sorted([*self.examples, *other.examples], key=lambda change: -change.swing)
        self.examples = widest[:most]


def edits(old: Constitution, new: Constitution) -> list[tuple[str, str]]:
    """(id, what happened to it) of each principle that the edit touches, in NEW's order."""
    before, after = ({p.id: p for p in c.principles} for c in (old, new))
    found = [(id_, _edit(before.get(id_), p)) for id_, p in after.items()]
    gone = [(id_, "removed") for id_ in before if id_ not in after]
    return [(id_, what) for id_, what in found if what] + gone


def _edit(old: Principle | None, new: Principle) -> str:
    if old is None:
        return "added"
    said = ["reworded"] if old.fingerprint != new.fingerprint else []
    if old.weight != new.weight:
        said.append(f"weight {old.weight:g} → {new.weight:g}")
    if old.veto != new.veto:
        said.append("now a veto" if new.veto else "no veto any more")
    return ", ".join(said)


def compare(
    old_records: Sequence[Record],
    new_records: Sequence[Record],
    old: Constitution,
    new: Constitution,
    how: Picking,
) -> Diff:
    """The labels of the same records under two constitutions.

    Args:
        old_records: with the verdicts under OLD, and no others.
        new_records: the same records, with those under NEW.
        old, new: the constitutions.
        how: how rows are picked.

    Raises:
        RecipeError: a principle has a veto, in pairwise mode.
    """
    diff = Diff(len(old_records), _verdicts(old_records, new_records, old, new))
    both = zip(labelled(old_records, old, how), labelled(new_records, new, how), strict=True)
    for was, now in both:
        pick = _pick_change(was.label.pick, now.label.pick)
        pairs = _pair_changes(was.label.pairs, now.label.pairs)
        diff.picks.update([pick] if pick else [])
        diff.pairs.update(pairs)
        if {pick, *pairs} - {None, SAME}:
            diff.relabelled += 1
            diff.examples.append(telling_change(was, now, how))
    return diff


def _pick_change(old: int | None, new: int | None) -> str | None:
    if old is None or new is None:
        return GONE if old is not None else NEW if new is not None else None
    return SAME if old == new else OTHER


def _pair_changes(old: Collection[Pair], new: Collection[Pair]) -> list[str]:
    reversed_old = {(j, i) for i, j in old}
    of_new = [SAME if p in old else TURNED if p in reversed_old else NEW for p in new]
    either_way = {*new, *((j, i) for i, j in new)}
    return of_new + [GONE for p in old if p not in either_way]


def _verdicts(
    old_records: Sequence[Record],
    new_records: Sequence[Record],
    old: Constitution,
    new: Constitution,
) -> dict[str, Counter[str]]:
    before = {p.id: p.fingerprint for p in old.principles}
    found: dict[str, Counter[str]] = {}
    for principle in new.principles:
        was, now = before.get(principle.id), principle.fingerprint
        if was is not None and was != now:
            found[principle.id] = Counter(
                _said(one, two)
                for records in zip(old_records, new_records, strict=True)
                for one, two in zip(_under(records[0], was), _under(records[1], now), strict=True)
            )
    return found


def _under(record: Record, principle: str) -> list[Verdict]:
    return [v for v in record.verdicts if v.principle == principle]


def _said(old: Verdict, new: Verdict) -> str:
    if (old.log_odds is None) != (new.log_odds is None):
        return ONE_SIDED
    if old.log_odds is None or new.log_odds is None:
        return SAME
    return SAME if (old.log_odds > 0) == (new.log_odds > 0) else TURNED
