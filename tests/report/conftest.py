"""A finished run to read, copies of it to break, and a browser for its page."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.browser import OpenPage, browser, open_page
from support.made_up_run import edit_run, finished_run, run_dir

from nas.report.page import render_page
from nas.runs.reading import Run, load_run

__all__ = ["browser", "edit_run", "finished_run", "run_dir"]


@pytest.fixture(scope="session")
def run(finished_run) -> Run:
    """The run, read."""
    return load_run(finished_run)


@pytest.fixture(scope="session")
def trimmed_run(run) -> Run:
    """The run, with its last trials of Large as if NetAdapt had made them of two seeds."""
    trials = run.trials.copy()
    last = trials[trials.target == "large"].index[-12:]
    trials.loc[last, "stage"] = ["netadapt"] * 8 + ["netadapt 2"] * 4
    trials.loc[last, "latency_ms"] = [4.2, 4.1, 4.05, 3.96, 4.19, 4.1, 4.0, 3.95, 4.2, 4.1, 4.0, 3.9]
    return dataclasses.replace(run, trials=trials)


@pytest.fixture
def show(browser, tmp_path) -> Iterator[Callable[..., OpenPage]]:
    """A function that opens the page of a run; it takes the width and the colours that `open_page` takes."""
    opened: list[OpenPage] = []

    def open_run(run: Run, **window) -> OpenPage:
        path = Path(tmp_path / f"{len(opened)}.html")
        path.write_text(render_page(run), encoding="utf-8")
        opened.append(open_page(browser, path, **window))
        return opened[-1]

    yield open_run
    for page in opened:
        page.page.context.close()
