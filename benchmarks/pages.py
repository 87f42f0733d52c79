"""Measure the pages of a run and of its playground in a headless Chromium: size, first drawing, slider, gap.

    python benchmarks/pages.py reports/20ms               # a minute; needs a Chromium, and the run's latency table
    python benchmarks/pages.py reports/20ms --pictures    # takes the pictures of both that README and docs show

The trials of the run are drawn again and again, moved a little each time, until there are 10,000. The playground's
best network of each of 40 budgets a skeleton is compared with the integer program's. Writes
benchmarks/results/pages.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pandas as pd
from playwright.sync_api import Browser, Page, sync_playwright

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.loading import load_space
from nas.latency.device import Device
from nas.latency.fidelity import covered_variants
from nas.latency.table import LatencyTable
from nas.playground.__main__ import main as playground
from nas.report.page import render_page
from nas.runs.reading import Run, load_run
from nas.search.limits import Limit
from nas.search.solver import solve

RESULTS = Path(__file__).parent / "results" / "pages.json"
IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDTH, HEIGHT = 1200, 1900  # of a picture, CSS pixels
BUDGET_MS = "12"  # that the pictured playground solves for
TRIALS = 10_000
OPENED = 5  # times
BUDGETS = 40
SLIDER_MS = 50
SPACES = ("mobilenet_v3_large", "mobilenet_v3_small")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
MOVE = """() => {
  const slider = document.getElementById("slider");
  const times = [];
  for (let i = 0; i <= 100; i += 1) {
    slider.value = String(Number(slider.min) + (Number(slider.max) - Number(slider.min)) * ((37 * i) % 101) / 101);
    const begun = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    times.push(performance.now() - begun);
  }
  return times;
}"""
SOLVE = """([index, budgets]) => {
  const data = pageData();
  const space = data.spaces[index];
  const begun = performance.now();
  const tables = space.variants.map((variant) => prepareVariant(data, space, variant));
  const prepared = performance.now() - begun;
  return { prepared, found: budgets.map((budget) => {
    const start = performance.now();
    const { top1, gap } = solveBudget(data, tables, budget);
    return { top1, gap, ms: performance.now() - start };
  }) };
}"""


def main() -> None:
    """Measure, print the table, and write the results; or take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", action="store_true")
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        if arguments.pictures:
            take_pictures(browser, run, Path(folder))
        else:
            tell(
                report_figures(browser, many_trials(run), Path(folder)) | playground_figures(browser, run, Path(folder))
            )
        browser.close()


def tell(figures: dict[str, Any]) -> None:
    """Print the figures, and write them."""
    here = Device.this()
    of = {"machine": here.cpu, "cores": here.cores, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    RESULTS.write_text(json.dumps(figures | of, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:60} {value}")


def take_pictures(browser: Browser, run: Run, folder: Path) -> None:
    """Save the first screen of the run's page, and that of the playground with a network for a budget."""
    report = opened(browser, run.path / "index.html", WIDTH, HEIGHT)
    report.screenshot(path=IMAGES / "report.png")
    built = opened(browser, written_playground(run, folder), WIDTH, HEIGHT)
    built.fill("#budget", BUDGET_MS)
    built.press("#budget", "Enter")
    built.screenshot(path=IMAGES / "playground.png")


def written_playground(run: Run, folder: Path) -> Path:
    """Return the page of the playground of a run's table, which begins from what the run found."""
    path = folder / "playground.html"
    playground(["--table", run.table.file, "--spec", str(run.path), "--out", str(path)])
    return path


def many_trials(run: Run) -> Run:
    """Return the run with 10,000 trials: its own, each time moved by a percent or so."""
    rng, copies = np.random.default_rng(0), []
    while sum(map(len, copies)) < TRIALS:
        moved = run.trials.copy()
        if copies:
            moved["latency_ms"] *= np.exp(rng.normal(0, 0.1, len(moved)))
            moved["top1"] += rng.normal(0, 0.5, len(moved))
        copies.append(moved)
    return replace(run, trials=pd.concat(copies, ignore_index=True)[:TRIALS])


def report_figures(browser: Browser, run: Run, folder: Path) -> dict[str, Any]:
    """Return the size of a run's page, and the time from opening it until the front is drawn."""
    path = folder / "index.html"
    path.write_text(render_page(run), encoding="utf-8")
    drawn, alone = [], []
    for _ in range(OPENED):
        page = opened(browser, path)
        drawn.append(float(page.evaluate("document.body.dataset.firstDrawing")))
        alone.append(float(page.evaluate("document.body.dataset.frontDrawing")))
        page.context.close()
    return {
        "page with 10,000 trials, MB": round(path.stat().st_size / 1e6, 2),
        "from opening to the drawn front, ms": round(median(drawn)),
        "of that drawing the front, ms": round(median(alone)),
    }


def playground_figures(browser: Browser, run: Run, folder: Path) -> dict[str, Any]:
    """Return the playground's size, its times, and its gaps to the proven optima."""
    path, table = written_playground(run, folder), LatencyTable.load(run.table.file)
    page = opened(browser, path)
    page.evaluate(MOVE)  # the first moves prepare
    times = page.evaluate(MOVE)
    figures: dict[str, Any] = {
        "playground, MB": round(path.stat().st_size / 1e6, 2),
        "a move of the slider, median, ms": round(median(times), 1),
        "of 101 moves within 50 ms": sum(time <= SLIDER_MS for time in times),
        "a move of the slider, longest, ms": round(max(times), 1),
    }
    prior, gaps, stated, prepared, solving = ImageNetPrior(), [], [], [], []
    for index, name in enumerate(SPACES):
        whole = load_space(name)
        if not (variants := covered_variants(table, whole)):
            continue
        space = whole.at(variants)
        score, latency = prior.additive_model(space), table.compile(space)
        low, high = Limit("latency", 0.0, latency).least().min(), -Limit("latency", 0.0, -latency).least().min()
        budgets = np.geomspace(1.001 * low, high, BUDGETS).tolist()
        found = page.evaluate(SOLVE, [index, budgets])
        prepared.append(found["prepared"])
        for budget, one in zip(budgets, found["found"], strict=True):
            limit = Limit("latency", budget, latency)
            solved = [solve(score, [limit], variant, gap=1e-6) for variant in range(len(variants))]
            best = float(prior.link(max(solution.score for solution in solved if solution)))
            gaps.append(best - one["top1"])
            stated.append(one["gap"])
            solving.append(one["ms"])
    return figures | {
        "budgets compared with the integer program": len(gaps),
        "below the optimum, largest, points": round(max(gaps), 4),
        "below the optimum, as the page bounds it, largest, points": round(max(stated), 4),
        "below the optimum, as the page bounds it, mean, points": round(mean(stated), 4),
        "solving a budget, longest, ms": round(max(solving), 1),
        "preparing a skeleton, longest, ms": round(max(prepared)),
        "browser": browser.version,
    }


def opened(browser: Browser, path: Path, width: int = 1280, height: int = 900) -> Page:
    """Return a page that has drawn itself."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(path.resolve().as_uri())
    # The page's policy forbids to poll a function.
    page.wait_for_selector("body:not([data-drawn='no'])", timeout=60_000)
    return page


if __name__ == "__main__":
    main()
