"""Data that does not collapse, against what is wanted: one table for all of rlaif/filters.

    python scripts/bench_filters.py [--json FILE] [--small] [--part NAME]

The parts can be run alone: filters_planted.py, filters_density.py, filters_drift.py,
filters_gaps.py, filters_scale.py, collapse_experiment.py. The last takes an hour and a half, if
it is not done yet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import collapse_experiment
import filters_density
import filters_drift
import filters_gaps
import filters_planted
import filters_scale
import typer
from bench_rows import Row, show, write
from rich.console import Console

PARTS: dict[str, Callable[[bool], list[Row]]] = {
    "planted": filters_planted.rows,
    "density": filters_density.rows,
    "drift": filters_drift.rows,
    "gaps": filters_gaps.rows,
    "scale": filters_scale.rows,
    "generations": collapse_experiment.rows,
}


def main(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    small: Annotated[bool, typer.Option(help="smaller and fewer: a look, not a result")] = False,
    part: Annotated[list[str] | None, typer.Option(help=f"only {', '.join(PARTS)}")] = None,
) -> None:
    """Measure, print, and write the rows as JSON."""
    rows = [row for name in part or PARTS for row in PARTS[name](small)]
    show(rows, Console(width=130))
    if json_file is not None:
        write(rows, json_file)


if __name__ == "__main__":
    typer.run(main)
