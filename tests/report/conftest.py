"""A finished run to read, and copies of it to break."""

import pytest
from support.made_up_run import edit_run, finished_run, run_dir

from nas.runs.reading import Run, load_run

__all__ = ["edit_run", "finished_run", "run_dir"]


@pytest.fixture(scope="session")
def run(finished_run) -> Run:
    """The run, read."""
    return load_run(finished_run)
