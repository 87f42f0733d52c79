"""Compare the accuracy of MobileNetV3 after each epoch of short trainings, with and without recalibrated batch norm.

    python benchmarks/batchnorm.py                  # or one of the three loops: --loop "nas.training, quick"

Trains MobileNetV3-Small and -Large on the embedded images at 32 px for six epochs each, in three ways: torchvision's
network in a plain loop, the same with ten times its batch norm momentum, and `nas.training` with the first epochs of
the recipe `quick`. Prints validation accuracies (percent) and writes benchmarks/results/batchnorm.json. It takes half
an hour on one thread.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

from nas.arch.loading import load_spec
from nas.files import write_text
from nas.models.mobilenet import build_model
from nas.training.data import EMBEDDED, load_data
from nas.training.evaluation import evaluate_model
from nas.training.images import Data
from nas.training.loop import Training
from nas.training.recipes import load_recipe

RESULTS = Path(__file__).parent / "results" / "batchnorm.json"
NETWORKS = ("mobilenet_v3_small", "mobilenet_v3_large")
EPOCHS = 6
RESOLUTION = 32
PLAIN = "torchvision, momentum 0.01"
FASTER = "torchvision, momentum 0.1"
OURS = "nas.training, quick"


class Row(NamedTuple):
    train_loss: float  # of OURS it includes label smoothing, which adds about 0.5
    val_loss: float
    top1: float  # percent


def plain_loop(network: str, data: Data, momentum: float) -> Iterator[Row]:
    """Train in the loop that one writes first: AdamW at 2e-3, batch 128, crops and flips."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(network, num_classes=len(data.classes))
    model = model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, fused=True)
    recipe, generator = load_recipe("quick"), torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        losses = []
        model.train()
        for images, labels in data.train.training_batches(recipe, RESOLUTION, generator):
            loss = cross_entropy(model(images.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        evaluation = evaluate_model(model, data.val.batches(500, RESOLUTION))
        yield Row(sum(losses) / len(losses), evaluation.cross_entropy, evaluation.top1)


def our_loop(network: str, data: Data) -> Iterator[Row]:
    torch.manual_seed(0)
    training = Training(
        build_model(load_spec(network), len(data.classes)), data, load_recipe("quick"), resolution=RESOLUTION
    )
    for metrics in training.epochs():
        yield Row(metrics.train_loss, metrics.val_loss, metrics.top1)
        if metrics.epoch == EPOCHS:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", choices=(PLAIN, FASTER, OURS), nargs="+", default=[PLAIN, FASTER, OURS])
    chosen = parser.parse_args().loop
    data, today = load_data(EMBEDDED), datetime.date.today().isoformat()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"epochs": {}, "dates": {}}
    results: dict[str, dict[str, list[dict[str, float]]]] = kept["epochs"]
    for network in NETWORKS:
        loops = {
            PLAIN: plain_loop(network, data, 0.01),
            FASTER: plain_loop(network, data, 0.1),
            OURS: our_loop(network, data),
        }
        for name in chosen:
            rows = [Row(*(round(value, 3) for value in row)) for row in loops[name]]
            results.setdefault(network, {})[name] = [row._asdict() for row in rows]
            print(f"{network:20} {name:28}", *(f"{row.top1:6.2f}" for row in rows), flush=True)
    report = {
        "dates": kept["dates"] | dict.fromkeys(chosen, today),
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "threads": torch.get_num_threads(),
        },
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "data": EMBEDDED,
        "resolution": RESOLUTION,
        "epochs": results,
    }
    write_text(RESULTS, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
