"""How quickly the report of a large run opens and filters, and how large its file is.

python scripts/loop_report.py [--small] [--json FILE]

A headless Chromium opens the page from the disk. Opening ends when the first rows can be seen and
every filter works; a filter ends two frames after the rows it left are on the page.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from bench_rows import Row, note, row, show, unmeasured, write
from report_run import characters, make_run, totals
from rich.console import Console

from rlaif.report import write_report

_PAIRS = 100_000
_REPEATS = 5
_FILTERS: dict[str, dict[str, str]] = {
    "by principle": {"by-principle": "3", "by-relation": "loses"},
    "dropped": {"by-status": "dropped"},
    "by a reason": {"by-status": "1"},
    "by probability": {"by-low": "0.6", "by-high": "0.8"},
    "in order": {"by-order": "confidence-up"},
    "all rows in order": {"by-kind": "-1", "by-order": "margin-down"},
}
_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
_WORDS = ("the", "zebra", "nothing has these words")

# Sets controls, and says how many milliseconds pass until the page shows what they leave.
_SET = """async (controls) => {
  const frame = () => new Promise((go) => requestAnimationFrame(go));
  const root = document.documentElement, before = root.dataset.settled, start = performance.now();
  for (const [id, value] of Object.entries(controls)) {
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event(id === "words" ? "input" : "change"));
  }
  let seen = before;
  while (root.dataset.settled === before) await frame();
  while (root.dataset.settled !== seen) { // two controls were set, and settle one after the other
    seen = root.dataset.settled;
    await frame();
    await frame();
  }
  return performance.now() - start;
}"""


def rows(small: bool = False) -> list[Row]:
    """All rows of this file; small is a hundredth of the pairs, and one look at them."""
    pairs = _PAIRS // 100 if small else _PAIRS
    name = f"report of {pairs:,} pairs"
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", pairs)
        start = time.perf_counter()
        page = write_report(run.root)
        seconds = time.perf_counter() - start
        size = page.stat().st_size / 1e6
        found = [
            row(f"{name}: file, MB", "<=", 30, size),
            note(f"{name}: seconds to write it", seconds),
            note(f"{name}: pairs that were picked", totals(run)["picked/pairs"]),
            note(f"{name}: characters of text a pair", characters(run)),
        ]
        return found + _in_browser(name, page, 1 if small else _REPEATS)


def _in_browser(name: str, page: Path, repeats: int) -> list[Row]:
    if _path() is None:
        return [unmeasured(f"{name}: seconds to open", "<=", 2, "scripts/install-browser")]
    opened: list[float] = []
    filtered: dict[str, list[float]] = {}
    searched: dict[str, list[float]] = {}
    with chromium() as browser:
        for _ in range(repeats):
            for words in _WORDS:  # each on a page that has searched nothing before
                tab, seconds = _open(browser, page)
                opened.append(seconds)
                searched.setdefault(words, []).append(tab.evaluate(_SET, {"words": words}) / 1000)
                tab.context.close()
            tab, seconds = _open(browser, page)
            opened.append(seconds)
            for what, controls in _FILTERS.items():
                filtered.setdefault(what, []).append(tab.evaluate(_SET, controls) / 1000)
                tab.click("#filters button[type=reset]")
                tab.wait_for_timeout(300)
            tab.context.close()
    return [
        row(f"{name}: seconds to open", "<=", 2, statistics.median(opened)),
        note(f"{name}: seconds to open, at worst", max(opened)),
        _slowest(f"{name}: seconds of the slowest filter", filtered),
        _slowest(f"{name}: seconds of the slowest search", searched),
        *(note(f"{name}: filter {k}, seconds", statistics.median(v)) for k, v in filtered.items()),
        *(
            note(f"{name}: search {k!r}, seconds", statistics.median(v))
            for k, v in searched.items()
        ),
    ]


def _slowest(name: str, found: dict[str, list[float]]) -> Row:
    return row(name, "<=", 2, max(statistics.median(seconds) for seconds in found.values()))


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_path(), args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


def _path() -> str | None:
    """Where Chromium is; None where scripts/install-browser has found and made none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def _open(browser: Any, page: Path) -> tuple[Any, float]:
    """A new tab with the page, and the seconds until its rows are there."""
    tab = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    start = time.perf_counter()
    tab.goto(page.resolve().as_uri(), wait_until="commit")
    tab.wait_for_selector("html[data-ready] .card")
    return tab, time.perf_counter() - start


def main(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    small: Annotated[bool, typer.Option(help="smaller and fewer: a look, not a result")] = False,
) -> None:
    """Measure, print, and write the rows as JSON."""
    found = rows(small)
    show(found, Console(width=130))
    if json_file is not None:
        write(found, json_file)


if __name__ == "__main__":
    typer.run(main)
