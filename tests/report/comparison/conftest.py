"""Runs and tables to be compared, read only, and the pages about them."""

from pathlib import Path

import pytest
from support.made_up_run import write_run
from support.made_up_table import made_up_table, other_device, slow_kernels

from nas.arch.loading import load_space
from nas.arch.published import published_spec
from nas.latency.table import LatencyTable
from nas.latency.table_comparison import compare_tables
from nas.report.comparison.tables import TablesView

ODD = '<i>"小" & co'  # the name of a folder


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs on two devices; the second has an odd name."""
    folder = tmp_path_factory.mktemp("compared")
    return [write_run(folder / "first"), write_run(folder / ODD, device="Other <b>EPYC</b>", seed=1)]


@pytest.fixture(scope="session")
def table_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Tables of two devices: the second takes twice as long for 5x5 kernels."""
    folder, v2, v1 = tmp_path_factory.mktemp("tables"), published_spec("mobilenet_v2"), published_spec("mobilenet_v1")
    spaces = [load_space("mobilenet_v3_small").at([(1.0, 224)])]
    here = other_device("Intel(R) Xeon(R) Processor 6-167-1")
    one = made_up_table(folder / "one.json", spaces, device=here, measured=[(v2, 1.0), (v1, 1.0)])
    there, measured = other_device("Other <b>EPYC</b>"), [(v2, 1.3), (v1, 0.9)]
    other = made_up_table(folder / "other.json", spaces, device=there, slower=slow_kernels, measured=measured)
    return [one.path, other.path]


@pytest.fixture(scope="session")
def view(table_files: list[Path]) -> TablesView:
    """The comparison of the two tables."""
    first, second = map(LatencyTable.load, table_files)
    return TablesView(compare_tables(first, second))
