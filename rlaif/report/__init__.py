"""A run as one page that anybody can open: `rlaif report RUN`.

    RUN → shards.py → responses.py → rows.py → columns.py, texts.py ─┐
    RUN → figures.py, counts.py, cost.py, provenance.py ─────────────┴→ page.py → RUN/report.html

The page needs no network and no other file. Nothing here takes the run's lock: a run that is still
going is shown as far as it has come, and a shard counts only with its manifest.
"""

from __future__ import annotations

from pathlib import Path


def write_report(run: Path, out: Path | None = None, limit_bytes: int = 28_000_000) -> Path:
    """Write the page of a run, and say where it lies.

    Args:
        run: the run folder, of a loop or of a plain run.
        out: the page's file; RUN/report.html by default.
        limit_bytes: the largest the file may be. The longest texts are shortened to fit, and the
            page says so; if that is not enough, rows are left out evenly, and it says that too.

    Raises:
        JournalError: there is no such run, or the page cannot be written.
        DataError: not one row fits.
    """
    from rlaif.report.page import build_page  # numpy, pyarrow and jinja2 are for this command alone
    from rlaif.report.save import save_page

    page = build_page(run, limit_bytes)
    return save_page(page, run / "report.html" if out is None else out)
