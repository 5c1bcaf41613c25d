"""What the loop reaches, against what is wanted: the whole table.

    python scripts/bench_loop.py [--json FILE] [--part sandbox --part kills …]

Each part can be run by itself, as ``python scripts/loop_<part>.py``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer
from bench_rows import Row, show, write
from rich.console import Console

PARTS = ("sandbox", "kills", "estimate", "report")


def rows_of(part: str) -> list[Row]:
    """The rows of one part.

    Raises:
        BadParameter: there is no such part.
    """
    if part not in PARTS:
        raise typer.BadParameter(f"no such part: {part}; there are {', '.join(PARTS)}")
    found: list[Row] = importlib.import_module(f"loop_{part}").rows()
    return found


def main(
    part: Annotated[list[str] | None, typer.Option(help="only these")] = None,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Print the table, and write it as JSON."""
    found = [row for one in (part or PARTS) for row in rows_of(one)]
    show(found, Console(width=120))
    if json_file is not None:
        write(found, json_file)


if __name__ == "__main__":
    typer.run(main)
