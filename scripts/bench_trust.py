"""What makes labels trustworthy, against what is wanted, where every label is known: the sandbox.

    python scripts/bench_trust.py [--json FILE] [--small]

Prints the effects of attacks and what each way of asking costs, and then one table (name, wanted,
measured, holds). Each part can be run alone: trust_judge.py, trust_critic.py, trust_strategies.py,
trust_attacks.py. Rows for which nothing is wanted are there to be read beside the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import trust_attacks
import trust_critic
import trust_judge
import trust_strategies
import typer
from bench_rows import show, write
from rich.console import Console
from trust_noise import teacher


def main(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    small: Annotated[
        bool, typer.Option(help="a look at a fifth of the rows, not a result")
    ] = False,
) -> None:
    """Measure, print, and write the rows as JSON."""
    console = Console(width=130)
    measured, fitted = (2_000, 2_000) if small else (10_500, 3_000)
    with teacher() as engine:
        rows = trust_judge.rows(engine, measured, fitted)
        rows += trust_critic.rows(engine, measured, fitted)
    rows += trust_strategies.rows(480 if small else 2_400, console=console)
    rows += trust_attacks.rows(60 if small else 200, console=console)
    show(rows, console)
    if json_file is not None:
        write(rows, json_file)


if __name__ == "__main__":
    typer.run(main)
