"""Rows of a benchmark: what was wanted, what was measured, and whether it holds."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def row(name: str, how: str, wanted: float, measured: float) -> Row:
    """A row of the table: `how` is <= or >=. What could not be measured does not hold."""
    holds = measured <= wanted if how == "<=" else measured >= wanted
    print(f"  {name}: {measured:.4g}", file=sys.stderr, flush=True)
    return {"name": name, "wanted": f"{how} {wanted:g}", "measured": measured, "holds": holds}


def note(name: str, measured: float) -> Row:
    """A row for which nothing is wanted: it is told."""
    print(f"  {name}: {measured:.4g}", file=sys.stderr, flush=True)
    return {"name": name, "wanted": "", "measured": measured, "holds": None}


def unmeasured(name: str, how: str, wanted: float, needs: str) -> Row:
    """A row of what is not installed here; `needs` is what installs it."""
    told = f"{name} (not measured: {needs})"
    print(f"  {told}", file=sys.stderr, flush=True)
    return {"name": told, "wanted": f"{how} {wanted:g}", "measured": math.nan, "holds": None}


def show(rows: list[Row], console: Console) -> None:
    """The rows as a table."""
    table = Table("name", "wanted", "measured", "holds")
    for r in rows:
        measured = "–" if math.isnan(r["measured"]) else f"{r['measured']:.4g}"
        holds = {True: "yes", False: "NO", None: ""}[r["holds"]]
        table.add_row(r["name"], r["wanted"], measured, holds)
    console.print(table)


def write(rows: list[Row], file: Path) -> None:
    """The rows as JSON; a figure that does not exist is null."""
    plain = [{**r, "measured": None if math.isnan(r["measured"]) else r["measured"]} for r in rows]
    file.write_text(json.dumps({"rows": plain}, indent=2) + "\n")
