"""How the page gets to its place: wholly, or not at all; it may lie outside of the run folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rlaif.run_folder import os_errors


def save_page(page: str, out: Path) -> Path:
    """Put the page in its place atomically.

    Raises:
        JournalError: it cannot be written. Nothing half-done stays behind.
    """
    with os_errors(out, "written"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".report.") as folder:
            temp = Path(folder) / out.name
            with temp.open("xb") as file:
                file.write(page.encode())
                file.flush()
                os.fsync(file.fileno())
            temp.replace(out)
    return out
