"""Rows → records: the prompts that a run starts from.

    load_prompts → shards → sample → judge → …

A row that cannot be used is kept aside with its place and the reason; it never ends a run. A
source without a single usable prompt does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from rlaif.errors import DataError
from rlaif.prompts.rows import BadRow, Values, read_rows
from rlaif.recipe import Prompts
from rlaif.records import Chat, Drop, Message, Record, record_id

_ROLES = ("system", "user", "assistant")


def load_prompts(source: Prompts) -> Iterator[Record | Drop]:
    """The usable prompts of a source as records without responses, and a drop for every other row.

    In the source's order, streamed; only the ids of the prompts so far are held, since an exact
    duplicate is dropped. The first `source.skip` usable prompts are left out; reading stops after
    `source.limit` others.

    Raises:
        DataError: the source cannot be read (see `read_rows`), or has no usable prompt at all.
    """
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    first: dict[str, Drop] = {}
    for place, row in read_rows(source):
        try:
            record = _record(row, source.column)
            if record.id in seen:
                raise BadRow("duplicate prompt", f"of record {record.id}")
        except BadRow as bad:
            drop = Drop(place, "prompts", bad.reason, bad.detail)
            counts[bad.reason] += 1
            first.setdefault(bad.reason, drop)
            yield drop
        else:
            seen.add(record.id)
            if len(seen) > source.skip:
                yield record
            if source.limit is not None and len(seen) == source.skip + source.limit:
                return
    if len(seen) <= source.skip:
        raise _nothing_usable(source, counts, first)


def shards(rows: Iterable[Record | Drop], size: int) -> Iterator[tuple[list[Record], list[Drop]]]:
    """Cut what `load_prompts` gives into shards of `size` records, each with its drops.

    A stage's batches never cross a shard. Drops go to the shard being filled; those at the end
    go to the last one.
    """
    records: list[Record] = []
    drops: list[Drop] = []
    for row in rows:
        if isinstance(row, Drop):
            drops.append(row)
            continue
        if len(records) == size:
            yield records, drops
            records, drops = [], []
        records.append(row)
    if records or drops:
        yield records, drops


def _record(row: Values | BadRow, column: str) -> Record:
    if isinstance(row, BadRow):
        raise row
    if column not in row:
        raise BadRow("missing column", f"the row has: {', '.join(row):.200}")
    prompt = read_chat(row[column])
    return Record(record_id(prompt), prompt)


def read_chat(value: object) -> Chat:
    """A prompt as a row holds it: a text is one user message; a list, messages up to the user's.

    Raises:
        BadRow: it is neither, or cannot be used.
    """
    if value is None or value == []:
        raise BadRow("empty text", repr(value))
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise BadRow("neither text nor a list of messages", type(value).__name__)
    chat = tuple(_message(m) for m in value)
    if chat[-1].role != "user":
        raise BadRow("the last message is not the user's", chat[-1].role)
    return chat


def _message(value: object) -> Message:
    if not isinstance(value, Mapping) or not {"role", "content"} <= value.keys():
        raise BadRow("not a message with role and content", f"{value!r:.80}")
    role, content = value["role"], value["content"]
    if role not in _ROLES:
        raise BadRow("unknown role", f"{role!r:.80}")
    if not isinstance(content, str):
        raise BadRow("content is not text", type(content).__name__)
    if not content.strip():
        raise BadRow("empty text", f"a {role} message without text")
    if not _is_unicode(content):
        raise BadRow("not valid Unicode", "a lone surrogate")
    return Message(role, content)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nothing_usable(source: Prompts, counts: Counter[str], first: dict[str, Drop]) -> DataError:
    file, key = source.path or source.dataset, "column"
    if not counts:
        return DataError("holds no rows", file=file, mend="give it prompts")
    reason, count = counts.most_common(1)[0]
    drop = first[reason]
    detail = f" ({drop.detail})" if drop.detail else ""
    return DataError(
        f"no usable prompt; {reason} in {count} of {counts.total()} rows, first {drop.id}{detail}",
        file=file,
        key=key,
        value=source.column,
        mend="mend the rows, or name the column that holds the prompt",
    )
