from pathlib import Path

import pytest

from nas.arch.spec import ArchSpec
from nas.console import Silent
from nas.netadapt.long_training import train_seed
from nas.netadapt.request import NetAdaptRequest
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.images import Data
from nas.training.run import LAST


class Listening(Silent):
    """A console that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_long_training_resumes_in_the_layout_that_it_had(
    tiny_spec: ArchSpec, little_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.training.data.load_data", lambda source, data_dir, loaders=None: little_data)
    request = NetAdaptRequest(network="tiny", budget_ms=1, data=little_data.source, epochs=1)
    whole = train_seed(request, tiny_spec, tmp_path, Listening())
    last = load_checkpoint(tmp_path / LAST)
    save_checkpoint(tmp_path / LAST, last | {"threads": 2})
    finished = Listening()
    again = train_seed(request, tiny_spec, tmp_path, finished)
    assert all(value.equal(whole.state_dict()[key]) for key, value in again.state_dict().items())
    assert not any("shares" in line for line in finished.lines)
    save_checkpoint(tmp_path / LAST, last | {"threads": 2, "epoch": 0, "metrics": []})
    console = Listening()
    train_seed(request, tiny_spec, tmp_path, console)
    assert "warning: 1 process of 2 threads shares 1 core, as many as the training had until now" in console.lines
    assert len(load_checkpoint(tmp_path / LAST)["metrics"]) == 1
