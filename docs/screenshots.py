"""Take the pictures of pages that README and docs show, from a run and its playground, by a headless Chromium.

uv run python docs/screenshots.py reports/20ms
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from nas.playground.__main__ import main as playground

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1200, 900  # CSS pixels
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
COLORS = 128  # of a picture: flat areas, so that a palette loses nothing that is seen


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
        take(browser, run / "index.html", IMAGES / "report.png")
        take(browser, page, IMAGES / "playground.png")
        browser.close()


def take(browser: Browser, page: Path, picture: Path) -> None:
    """Save the first screen of a page as a PNG."""
    opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    opened.goto(page.resolve().as_uri())
    opened.wait_for_function("document.body.dataset.drawn !== 'no'")
    opened.screenshot(path=picture)
    _shrink(picture)


def _shrink(picture: Path) -> None:
    from PIL import Image

    with Image.open(picture) as image:
        image.convert("P", palette=Image.Palette.ADAPTIVE, colors=COLORS).save(picture, optimize=True)


if __name__ == "__main__":
    main()
