"""A topic map as a table: the regions with too many prompts and too few, in their own words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlaif.prompts.topics import Region, TopicMap

_LONGEST = 52  # characters of a prompt


def print_topics(found: TopicMap, console: Console, most: int = 8) -> None:
    """How even the prompts are, and up to `most` regions at each end."""
    console.print(f"topic entropy over {len(found.cells)} regions: {found.evenness}")
    if found.anchors is not None:
        console.print(f"… of the anchors: {found.anchors}")
    if found.drops:
        console.print(f"{len(found.drops)} of {len(found.place)} prompts have no embedding")
    _print_regions("Over-filled", found.over, console, most)
    _print_regions("Under-filled", found.under, console, most)


def _print_regions(title: str, regions: Sequence[Region], console: Console, most: int) -> None:
    if not regions:
        console.print(f"{title}: none beyond chance")
        return
    more = f", {most} of {len(regions)}" if len(regions) > most else ""
    table = Table(title=f"{title} regions{more}")
    table.add_column("region", justify="right")
    for column in ("prompts", "share", "expected"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("most typical")
    for region in regions[:most]:
        table.add_row(
            str(region.cell),
            str(region.count),
            f"{_percent(region.share)} ({_percent(region.low)} to {_percent(region.high)})",
            _percent(region.expected),
            escape("\n".join(_short(text) for text in region.typical)) or "–",
        )
    console.print(table)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(text: str) -> str:
    line = " ".join(text[: 4 * _LONGEST].split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
