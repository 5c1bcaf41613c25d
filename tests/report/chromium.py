"""A headless Chromium for the tests of the page, and what it says that it should not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, PHONE = (1280, 900), (375, 700)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's browser; a test without one is skipped, and says why."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("NO CHROMIUM: the page is not tested in a browser; run scripts/install-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """An open page, with all that it logged and asked the network for."""

    def __init__(
        self, browser: Browser, file: Path, size: tuple[int, int] = WIDE, scheme: str = "light"
    ) -> None:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore
        self.page: Page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.resolve().as_uri())
        self.page.wait_for_selector("html[data-ready]")

    def settle(self) -> None:
        """Wait until the page shows what its controls ask for."""
        self.until(
            "document.documentElement.dataset.turn === document.documentElement.dataset.settled"
        )

    def until(self, condition: str) -> None:
        """Wait until an expression is true; the page's policy forbids Playwright's own waiting."""
        end = time.monotonic() + 10
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"this did not become true: {condition}"
            self.page.wait_for_timeout(10)

    def choose(self, **controls: str) -> None:
        """Set filters by the ends of their ids, and wait for their rows."""
        for name, value in controls.items():
            control = self.page.locator(f"#by-{name}")
            if control.evaluate("c => c.tagName") == "SELECT":
                control.select_option(value)
            else:
                control.fill(value)
                control.blur()
        self.settle()

    def look_for(self, words: str) -> None:
        """Search, and wait for all hits."""
        self.page.locator("#words").fill(words)
        self.settle()

    @property
    def count(self) -> str:
        """What the page says of how many rows fit."""
        return self.page.inner_text("#count")

    def cards(self) -> list[str]:
        """The texts of the rows on the screen."""
        return self.page.locator(".card").all_inner_texts()

    def focused(self) -> str:
        """The label of what has the focus, or its id."""
        return self.page.evaluate(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.id"
        )

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")

    def colour(self) -> str:
        """The page's background."""
        return self.page.evaluate("getComputedStyle(document.body).backgroundColor")
