"""Evaluators as a request asks for them."""

from pathlib import Path

import pytest
import torch

from nas.arch.spec import ArchSpec
from nas.console import Silent
from nas.models.mobilenet import build_model
from nas.netadapt import evaluators
from nas.netadapt.request import NetAdaptRequest
from nas.netadapt.seed import Seed
from nas.training.data import EMBEDDED
from nas.training.recipes import load_recipe


@pytest.mark.parametrize("batch_size", [128, 100_000])
def test_data_smaller_than_a_batch_are_said(
    tiny_spec: ArchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    messages: list[str] = []
    console = Silent()
    monkeypatch.setattr(console, "say", messages.append, raising=False)
    recipe = load_recipe("quick").replace(batch_size=batch_size)
    monkeypatch.setattr(evaluators, "recipe_of", lambda request: recipe)
    torch.manual_seed(0)
    seed = Seed(tiny_spec, build_model(tiny_spec, 10), tuple("abcdefghij"))
    request = NetAdaptRequest(network="tiny", budget_ms=1.0, data=EMBEDDED)
    evaluators.make_evaluator(request, seed, lambda: 0.5, tmp_path, console)
    assert len(messages) == (batch_size == 100_000)
    assert all("images to train on are fewer than the batch of 100000 of recipe quick" in line for line in messages)
