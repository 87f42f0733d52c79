"""Measure the accuracy and the speed of training: the recipe `quick`, and images per second beside a plain loop.

    python benchmarks/training.py

Trains MobileNetV3-Small on the embedded images at 32 px by the recipe `quick` with three seeds. Then it times steps of
`nas.training` and of torchvision's network in a plain loop, interleaved. Writes benchmarks/results/training.json and
docs/images/training.png. It takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torchvision
from torch import Tensor
from torch.nn.functional import cross_entropy

from nas.arch.loading import load_spec
from nas.cpu import usable_cores
from nas.files import write_text
from nas.latency.device import Device
from nas.models.mobilenet import build_model
from nas.training.data import EMBEDDED, load_data
from nas.training.images import Data
from nas.training.loop import Machine, Training
from nas.training.recipes import load_recipe
from nas.training.tensor_images import TensorImages

RESULTS = Path(__file__).parent / "results" / "training.json"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "training.png"
NETWORK = "mobilenet_v3_small"
SEEDS = (0, 1, 2)
TARGET_TOP1, TARGET_SECONDS = 90.5, 240
# Pixels, and images in a step. `quick` trains at 32 pixels, and the network is meant for 224.
SPEEDS = ((32, 128), (224, 32))
ROUNDS, STEPS = 7, 3


def train(data: Data, seed: int) -> list[dict[str, float]]:
    """Train a network, and return a row an epoch: seconds since the start, top-1 with and without averaged weights."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    model = build_model(load_spec(NETWORK), len(data.classes))
    training = Training(model, data, load_recipe("quick"), resolution=32, seed=seed)
    return [
        {
            "seconds": round(time.perf_counter() - start, 1),
            "train_loss": round(row.train_loss, 4),
            "top1": row.top1,
            "raw_top1": row.raw_top1,
        }
        for row in training.epochs()
    ]


def speed(data: Data, resolution: int, batch_size: int) -> dict[str, float]:
    """Return the images per second of both loops, medians of interleaved rounds, and the median of the rounds' ratios.

    Both take augmented batches from the same source, with the channels last. Ours also averages weights and follows a
    schedule.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe = load_recipe("quick").replace(batch_size=batch_size, epochs=1 + ROUNDS)
    few = TensorImages(data.train.images[: batch_size * STEPS], data.train.labels[: batch_size * STEPS])  # type: ignore[attr-defined]
    training = Training(
        build_model(load_spec(NETWORK), len(data.classes)),
        Data(data.source, data.classes, few, data.val),
        recipe,
        resolution=resolution,
        machine=Machine(device=device),
    )
    plain = torchvision.models.get_model(NETWORK, num_classes=len(data.classes))
    plain = plain.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, fused=True)

    def plain_step(images: Tensor, labels: Tensor) -> None:
        loss = cross_entropy(plain(images.to(device, memory_format=torch.channels_last)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    def images_per_second(step: Callable[[Tensor, Tensor], Any]) -> float:
        start = time.perf_counter()
        for images, labels in few.training_batches(recipe, resolution, torch.Generator().manual_seed(0)):
            step(images, labels)
        if device == "cuda":
            torch.cuda.synchronize()
        return len(few) / (time.perf_counter() - start)

    training.model.train()
    plain.train()
    rounds = [(images_per_second(training._step), images_per_second(plain_step)) for _ in range(1 + ROUNDS)][1:]
    return {
        "resolution": resolution,
        "batch_size": batch_size,
        "ours": round(statistics.median(ours for ours, _ in rounds), 1),
        "plain": round(statistics.median(theirs for _, theirs in rounds), 1),
        "ratio": round(statistics.median(ours / theirs for ours, theirs in rounds), 3),
    }


def draw(runs: dict[int, list[dict[str, float]]]) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for seed, rows in runs.items():
        axes.plot([row["seconds"] / 60 for row in rows], [row["top1"] for row in rows], lw=1.2, label=f"seed {seed}")
    axes.axhline(TARGET_TOP1, color="grey", lw=0.8, ls=":")
    axes.set(xlabel="minutes", ylabel="top-1 on the validation images (%)", ylim=(70, 93), xlim=(0, None))
    axes.set_title(f"{NETWORK}, {EMBEDDED}, 32 px, recipe quick", fontsize=10)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120)


def main() -> None:
    data = load_data(EMBEDDED)
    runs = {}
    for seed in SEEDS:
        runs[seed] = train(data, seed)
        last, best = runs[seed][-1], max(runs[seed], key=lambda row: row["top1"])
        print(
            f"seed {seed}: {last['top1']:.2f} % after {len(runs[seed])} epochs and {last['seconds']:.0f} s "
            f"(best epoch {best['top1']:.2f} %)",
            flush=True,
        )
    mean = statistics.mean(rows[-1]["top1"] for rows in runs.values())
    slowest = max(rows[-1]["seconds"] for rows in runs.values())
    print(
        f"mean {mean:.2f} % (wanted {TARGET_TOP1}), slowest run {slowest:.0f} s (at most {TARGET_SECONDS})",
        flush=True,
    )
    speeds = [speed(data, *setting) for setting in SPEEDS]
    for row in speeds:
        print(
            f"{row['resolution']} px, batch {row['batch_size']}: {row['ours']} images/s, torchvision's in a plain loop "
            f"{row['plain']}, ratio {row['ratio']}",
            flush=True,
        )
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "cpu": Device.this().cpu,
            "system": platform.system(),
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
        },
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "network": NETWORK,
        "data": EMBEDDED,
        "recipe": load_recipe("quick").to_dict(),
        "mean_top1_of_last_epochs": round(mean, 3),
        "slowest_run_seconds": slowest,
        "images_per_second": speeds,
        "runs": {str(seed): rows for seed, rows in runs.items()},
    }
    write_text(RESULTS, json.dumps(report, indent=1) + "\n")
    draw(runs)


if __name__ == "__main__":
    main()
