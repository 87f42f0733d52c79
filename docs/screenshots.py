"""Take the pictures of pages that README and docs show, from a run and its playground, by a headless Chromium.

uv run python docs/screenshots.py reports/20ms
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from nas.playground.__main__ import main as playground

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1200, 1900  # CSS pixels
BUDGET_MS = "12"  # that the playground solves for
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Write docs/images/report.png and docs/images/playground.png."""
    run = Path(sys.argv[1])
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "playground.html"
        playground(["--spec", str(run), "--out", str(page)])
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        take(opened(browser, run / "index.html"), IMAGES / "report.png")
        built = opened(browser, page)
        built.fill("#budget", BUDGET_MS)
        built.press("#budget", "Enter")
        take(built, IMAGES / "playground.png")
        browser.close()


def opened(browser: Browser, page: Path) -> Page:
    """Return a page that has drawn itself."""
    made = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    made.goto(page.resolve().as_uri())
    made.wait_for_function("document.body.dataset.drawn !== 'no'")
    return made


def take(page: Page, picture: Path) -> None:
    """Save what a page shows as a PNG."""
    page.screenshot(path=picture)


if __name__ == "__main__":
    main()
