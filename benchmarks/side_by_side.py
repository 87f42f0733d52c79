"""Measure how much sooner short trainings end that are done side by side, one a core, and that they find the same.

uv run python benchmarks/side_by_side.py                   # a minute and a half on two cores
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nas.accuracy.short_training import ShortTraining
from nas.arch.loading import load_spec
from nas.cpu import usable_cores
from nas.latency.device import Device
from nas.training.images import Data

RESULTS = Path(__file__).parent / "results" / "side_by_side.json"
NETWORKS = [f"mobilenet_v3_small@{width}" for width in (0.75, 0.8, 0.9, 1.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-a-time", type=int, default=usable_cores(), metavar="N", help="default: one a core")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="of each training (default: 1)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE")
    arguments = parser.parse_args()
    figures = speed_of_batches(arguments.at_a_time, arguments.epochs)
    print(f"one at a time: {figures['one_s']:.1f} s")
    print(f"{figures['at_a_time']} at a time: {figures['together_s']:.1f} s, {figures['ratio']:.2f} times as fast")
    print(f"and {figures['start_s']:.1f} s before that, once a run, for the processes to start")
    record = {
        **figures,
        "networks": NETWORKS,
        "machine": Device.this().cpu,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def speed_of_batches(at_a_time: int, epochs: int) -> dict[str, Any]:
    """Return the seconds of four short trainings (`NETWORKS`, included images, 32 px), one and several at a time.

    The processes have started before that, in `start_s`. With one epoch no training is stopped early. Raises
    AssertionError where the results differ.
    """
    specs = [load_spec(name) for name in NETWORKS]
    together, one = ShortTraining(at_a_time=at_a_time, epochs=epochs), ShortTraining(at_a_time=1, epochs=epochs)
    begun = time.perf_counter()
    started = {together._pool.begin(_nothing) for _ in range(at_a_time)}
    while started:
        number, _ = together._pool.next_value()
        started.discard(number)
    start_s = time.perf_counter() - begun
    seconds, found = {}, {}
    for name, estimator in (("together_s", together), ("one_s", one)):
        begun = time.perf_counter()
        found[name] = estimator.estimate(specs).top1.tolist()
        seconds[name] = round(time.perf_counter() - begun, 2)
        estimator.close()
    assert found["one_s"] == found["together_s"]
    ratio = round(seconds["one_s"] / seconds["together_s"], 2)
    return {"at_a_time": at_a_time, "epochs": epochs, **seconds, "ratio": ratio, "start_s": round(start_s, 2)}


def _nothing(data: Data, stopped: Callable[[], bool]) -> Iterator[None]:
    """Do nothing, in a process that has started."""
    yield


if __name__ == "__main__":
    main()
