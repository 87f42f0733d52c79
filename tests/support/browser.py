"""Open pages in a headless Chromium, and hold what every page must keep."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

WIDTHS = (360, 768, 1280)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 180.0  # seconds: a busy machine may stop for a while, and what a page lacks fails however late


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a headless Chromium of this machine. The test skips where there is none."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("no Chromium is installed; `apt-get install chromium`, as .ci/run does")
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=sandbox, timeout=1000 * PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


class OpenPage:
    """A page in a browser, with what it complained of and what it asked the network for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.requests.append(request.url)

    def check_quiet(self) -> None:
        """Assert that nothing was written to the console, and nothing was asked of a network."""
        assert not self.complaints
        assert not self.requests

    def sideways(self) -> int:
        """Return by how many pixels the page can be scrolled sideways."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def check_accessible(self) -> None:
        """Assert that axe-core finds no violation: contrast, names of controls, order of headings."""
        from axe_playwright_python.sync_playwright import Axe

        results = Axe().run(self.page)
        assert not results.response["violations"], results.generate_report()


def open_page(
    browser: Browser, path: Path, *, width: int = 1280, color_scheme: Literal["light", "dark"] = "light"
) -> OpenPage:
    """Open a file in a new window of that width (pixels), and wait until it has drawn."""
    opened = OpenPage(new_window(browser, width, color_scheme))
    opened.page.goto(path.resolve().as_uri(), wait_until="load")
    wait_for_drawing(opened.page)
    return opened


def new_window(browser: Browser, width: int = 1280, color_scheme: Literal["light", "dark"] = "light") -> Page:
    """Return an empty page in a window of that width (pixels)."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=color_scheme)
    context.set_default_timeout(1000 * PATIENCE)
    return context.new_page()


def wait_for_drawing(page: Page) -> None:
    """Wait until the page's script set `document.body.dataset.drawn`, if it has one that says so."""
    end = time.monotonic() + PATIENCE
    while page.evaluate("document.body.dataset.drawn ?? 'yes'") == "no":
        assert time.monotonic() < end, "the page did not draw itself"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a headless Chromium for the tests of a module."""
    with chromium() as opened:
        yield opened
