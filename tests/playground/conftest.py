"""One page of a made-up table for all tests, and a browser for each module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from support.browser import OpenPage, browser, open_page
from support.made_up_table import NOISE, ODD_NAME, made_up_table, trimmed_network

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.loading import load_space, load_spec
from nas.arch.space import SearchSpace
from nas.latency.table import LatencyTable
from nas.playground.data import Start, cover
from nas.playground.page import write_playground

__all__ = ["browser"]

# At width 0.35 two stages of Small have the same channels.
VARIANTS = {
    "mobilenet_v3_large": [(0.75, 192), (1.0, 224)],
    "mobilenet_v3_small": [(0.35, 128), (1.0, 224)],
}


@pytest.fixture(scope="session")
def spaces() -> list[SearchSpace]:
    return [load_space(name).at(variants) for name, variants in VARIANTS.items()]


@pytest.fixture(scope="session")
def table(spaces: list[SearchSpace], tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    specs = [load_spec("mobilenet_v3_large"), load_spec("mobilenet_v3_small"), trimmed_network()]
    file = tmp_path_factory.mktemp("table") / "table.json"
    v4 = [load_spec("mobilenetv4_conv_medium")]  # of which the table has rows, but which no one measured whole
    return made_up_table(file, spaces, specs=[*specs, *v4], measured=[(spec, 1.01) for spec in specs], noise=NOISE)


@pytest.fixture(scope="session")
def page_path(table: LatencyTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "playground.html"
    known = cover(table, [load_space(name) for name in VARIANTS])
    own = [Start(ODD_NAME, load_spec("mobilenet_v3_small").replace(name=ODD_NAME), yours=True)]
    write_playground(path, table, known, ImageNetPrior(), [*own, Start("trimmed", trimmed_network(), yours=True)])
    return path


@pytest.fixture(scope="module")
def functions(browser: Browser, page_path: Path) -> OpenPage:
    """The page, of which only the functions are called that do not change it."""
    return open_page(browser, page_path)


@pytest.fixture
def opened(browser: Browser, page_path: Path) -> Iterator[OpenPage]:
    """The page as a person opens it."""
    page = open_page(browser, page_path)
    yield page
    page.check_quiet()
    page.page.context.close()
