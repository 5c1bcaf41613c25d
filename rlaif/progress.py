"""Progress bars for the command line: one line a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rlaif.stages import Progress as Tell


@contextmanager
def progress_bars(console: Console | None = None) -> Iterator[Tell]:
    """Give a function for `pipeline.label` and others to tell of their shards."""
    bars = Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    tasks: dict[str, object] = {}

    def tell(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done)  # type: ignore[arg-type]

    with bars, _quiet_libraries():
        yield tell


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Our bars alone: transformers draws one of its own for every model it loads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
