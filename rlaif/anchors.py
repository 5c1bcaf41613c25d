"""The human gold set as texts: what filters, topics and the watch over collapse hold data to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rlaif.errors import DataError
from rlaif.filters.row_texts import Compare, RowTexts, row_texts
from rlaif.prompts.rows import BadRow, read_rows
from rlaif.recipe import Anchors
from rlaif.records import Drop


def load_anchors(source: Anchors) -> tuple[list[RowTexts], list[Drop]]:
    """The anchors, and a drop for every row that is none. An exact duplicate is one of these.

    Raises:
        DataError: the source cannot be read, or has no usable row.
    """
    found: dict[RowTexts, None] = {}
    drops: list[Drop] = []
    for place, row in read_rows(source):
        try:
            if isinstance(row, BadRow):
                raise row
            texts = row_texts(row)
            if not any(part.strip() for part in texts):
                raise BadRow("empty text")
            if texts in found:
                raise BadRow("duplicate anchor")
        except BadRow as bad:
            drops.append(Drop(place, "anchors", bad.reason, bad.detail))
            continue
        found[texts] = None
        if len(found) == source.limit:
            break
    if not found:
        raise _nothing_usable(source, drops)
    return list(found), drops


def compared_anchors(anchors: Sequence[RowTexts], what: Compare, source: Anchors) -> list[str]:
    """What of the anchors is compared; each text once.

    Raises:
        DataError: none of them has a prompt, or an answer, and that is what is to be compared.
    """
    texts = list(dict.fromkeys(t for t in (a.compared(what) for a in anchors) if t.strip()))
    if not texts:
        raise DataError(
            f"the anchors have no {what}", file=source.path or source.dataset,
            mend="compare what they have: prompt, response or both",
        )  # fmt: skip
    return texts


def _nothing_usable(source: Anchors, drops: Sequence[Drop]) -> DataError:
    where = source.path or source.dataset
    mend = "give rows with `prompt` and `completion`, `chosen`, `messages` or `text`"
    if not drops:
        return DataError("holds no anchors", file=where, mend=mend)
    (reason, count), first = Counter(d.reason for d in drops).most_common(1)[0], drops[0]
    what = f"no usable anchor; {reason} in {count} of {len(drops)} rows, first {first.id}"
    return DataError(what, file=where, mend=mend)
