import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_run import write_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both roles, to be read only."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", {"large": 4.0, "small": 1.2})


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def edit_run(run_dir: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Changes run.json in place by a function of its object; the run's folder."""

    def edit(change: Callable[[dict[str, Any]], object]) -> Path:
        data = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        change(data)
        (run_dir / "run.json").write_text(json.dumps(data), encoding="utf-8")
        return run_dir

    return edit
