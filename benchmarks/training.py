"""Measure the accuracy and the speed of training: the recipe `quick`, and images per second beside a plain loop.

    python benchmarks/training.py
    python benchmarks/training.py --speed     # the speed only; writes nothing
    python benchmarks/training.py --accuracy  # the accuracy only; the speeds in the file stay

Times steps of `nas.training`, by threads and by processes, and of torchvision's network in a plain loop, interleaved.
Then two networks side by side on a core each. Then it trains MobileNetV3-Small on the embedded images at 32 px by the
recipe `quick` with three seeds, as `python -m nas.train` does. Writes benchmarks/results/training.json and
docs/images/training.png. It takes half an hour on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torchvision
from torch.nn.functional import cross_entropy

from nas.arch.loading import load_spec
from nas.cpu import usable_cores
from nas.files import write_text
from nas.latency.device import Device
from nas.models.mobilenet import build_model
from nas.training.cores import LEAST_SHARE, layouts, step_timer, train_on_cores
from nas.training.data import EMBEDDED, load_data
from nas.training.images import Data
from nas.training.loop import Machine, Metrics, Training
from nas.training.recipes import load_recipe
from nas.training.run import Settings
from nas.training.threads import threads_used

RESULTS = Path(__file__).parent / "results" / "training.json"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "training.png"
NETWORK = "mobilenet_v3_small"
SEEDS = (0, 1, 2)
TARGET_TOP1, TARGET_SECONDS = 90.5, 240
# Pixels, images in a step, and the images a second that are wanted on two cores, relative to the plain loop.
# `quick` trains at 32 pixels, and the network is meant for 224.
SPEEDS = ((32, 128, 1.5), (64, 128, 1.25), (224, 32, 1.05))
TARGET_SIDE_BY_SIDE = 1.9  # the images a second of two networks on a core each, relative to one on one core
PARTS = (2, 8)  # of a batch
ROUNDS, STEPS = 7, 3
SPEED_NAMES = ("speeds_measured", "images_per_second", "side_by_side", "side_by_side_wanted")  # in the file


def train(data: Data, seed: int) -> list[dict[str, float]]:
    """Train a network, and return a row an epoch: seconds since the start, top-1 of the averaged weights."""
    start, rows = time.perf_counter(), []

    def note(row: Metrics) -> None:
        seconds = round(time.perf_counter() - start, 1)
        loss = round(row.train_loss, 4)
        rows.append({"seconds": seconds, "train_loss": loss, "top1": row.top1})

    with tempfile.TemporaryDirectory() as folder:
        train_on_cores(_settings(32, 128, seed), data, folder, machine=Machine(), say=print, on_epoch=note)
    return rows


def _settings(resolution: int, batch_size: int, seed: int = 0) -> Settings:
    recipe = load_recipe("quick").replace(batch_size=batch_size)
    return Settings(spec=load_spec(NETWORK), source=EMBEDDED, recipe=recipe, resolution=resolution, seed=seed)


def plain_seconds(resolution: int, batch_size: int, classes: int) -> Callable[[int], float]:
    """Return a function that returns the mean seconds of so many steps of torchvision's network in a plain loop."""
    model = torchvision.models.get_model(NETWORK, num_classes=classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images = torch.rand(batch_size, 3, resolution, resolution)
    labels = torch.randint(classes, (batch_size,))

    def step() -> None:
        loss = cross_entropy(model(images.to(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    def seconds(steps: int) -> float:
        step()  # the first one allocates memory
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - start) / steps

    return seconds


def speed(data: Data, resolution: int, batch_size: int, wanted: float) -> dict[str, Any]:
    """Return images per second, medians of interleaved rounds, of the plain loop and of each layout of ours.

    A ratio is the median of the rounds' ratios, and counts for the layout where it is largest. Both sides take made-up
    images, with the channels last. Ours also averages weights and follows a schedule.
    """
    plain = plain_seconds(resolution, batch_size, len(data.classes))
    ways = layouts(usable_cores(), batch_size, 1)
    rounds = []
    with step_timer(_settings(resolution, batch_size), data, Machine(), ways[-1].processes) as timed:
        for _ in range(1 + ROUNDS):
            with threads_used(usable_cores()):
                theirs = plain(STEPS)
            rounds.append((theirs, {way: timed(way, STEPS) for way in ways}))
    del rounds[0]
    ratios = {way: statistics.median(theirs / ours[way] for theirs, ours in rounds) for way in ways}
    best = max(ways, key=ratios.__getitem__)

    def per_second(seconds: Iterable[float]) -> float:
        return round(batch_size / statistics.median(seconds), 1)

    return {
        "resolution": resolution,
        "batch_size": batch_size,
        "plain": per_second(theirs for theirs, _ in rounds),
        "ours": {str(way): per_second(ours[way] for _, ours in rounds) for way in ways},
        "ratios": {str(way): round(ratio, 3) for way, ratio in ratios.items()},
        "layout": str(best),
        "ratio": round(ratios[best], 3),
        "wanted": wanted,
    }


def shares(data: Data, resolution: int, batch_size: int) -> dict[str, float]:
    """Return how long a step on a part of the batch takes on one thread, relative to a step on the whole."""
    timed = {}
    for parts in (1, *(count for count in PARTS if batch_size // count >= LEAST_SHARE)):
        settings = _settings(resolution, batch_size // parts)
        model = build_model(settings.spec, len(data.classes))
        timed[parts] = Training(model, data, settings.recipe, resolution=resolution).time_steps
    with threads_used(1):
        rounds = [{parts: seconds(STEPS) for parts, seconds in timed.items()} for _ in range(1 + ROUNDS)][1:]
    return {f"1/{parts}": round(statistics.median(row[parts] / row[1] for row in rounds), 3) for parts in timed}


def side_by_side() -> float:
    """Return how many times the images of one network on one core two networks on a core each train in a time."""
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(2)]
    children = [spawn.Process(target=_train_beside, args=(theirs,), daemon=True) for _, theirs in pipes]
    for child in children:
        child.start()
    (first, _), (second, _) = pipes
    ratios = []
    for _ in range(1 + ROUNDS):
        seconds = []
        for at_work in ((first,), (first, second)):
            for pipe in at_work:
                pipe.send(10 * STEPS)
            seconds.append(max(pipe.recv() for pipe in at_work))
        ratios.append(2 * seconds[0] / seconds[1])
    for child in children:
        child.terminate()
    return round(statistics.median(ratios[1:]), 3)


def _train_beside(pipe: Connection) -> None:
    """Train steps of one network on one thread, as many as the pipe says, and tell the mean seconds of a step."""
    torch.set_num_threads(1)
    data, settings = load_data(EMBEDDED), _settings(*SPEEDS[0][:2])
    model = build_model(settings.spec, len(data.classes))
    training = Training(model, data, settings.recipe, resolution=settings.resolution)
    while True:
        pipe.send(training.time_steps(pipe.recv()))


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


def measure_speeds(data: Data) -> dict[str, Any]:
    """Return and print the speeds."""
    rows = []
    for setting in SPEEDS:
        rows.append(row := {**speed(data, *setting), "steps_of_shares": shares(data, *setting[:2])})
        ours = ", ".join(f"{way} {row['ours'][way]} ({ratio:.2f})" for way, ratio in row["ratios"].items())
        print(
            f"{row['resolution']} px, batch {row['batch_size']}, images/s: torchvision's in a plain loop "
            f"{row['plain']}; ours by {ours}; ratio {row['ratio']:.2f} (wanted {row['wanted']}); "
            f"steps on a part of the batch, one thread: {row['steps_of_shares']}",
            flush=True,
        )
    beside = side_by_side()
    print(f"two networks side by side: {beside:.2f} times one (wanted {TARGET_SIDE_BY_SIDE})", flush=True)
    measured = {"date": datetime.date.today().isoformat(), "cpu": Device.this().cpu}
    return dict(zip(SPEED_NAMES, (measured, rows, beside, TARGET_SIDE_BY_SIDE), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the accuracy and the speed of training.")
    parser.add_argument("--speed", action="store_true", help="measure the speed only, and write nothing")
    parser.add_argument("--accuracy", action="store_true", help="train only, and keep the speeds that were measured")
    arguments = parser.parse_args()
    data = load_data(EMBEDDED)
    if arguments.accuracy:
        before = json.loads(RESULTS.read_text(encoding="utf-8"))
        speeds = {name: before[name] for name in SPEED_NAMES}
    else:
        speeds = measure_speeds(data)
    if arguments.speed:
        return
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
        **speeds,
        "runs": {str(seed): rows for seed, rows in runs.items()},
    }
    write_text(RESULTS, json.dumps(report, indent=1) + "\n")
    draw(runs)


if __name__ == "__main__":
    main()
