"""Time training steps of networks with large feature maps, with and without freed memory that stays with the process.

    python benchmarks/large_maps.py                    # two minutes

Each way has a process of its own, and the processes take turns. In bfloat16 there is a third way, in which depthwise
convolutions with a stride are computed in bfloat16 too, as torch does. Writes benchmarks/results/large_maps.json.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import platform
import time
from pathlib import Path
from typing import Any

import torch
from macro_specs import channel_bench_macro_spec
from torch.nn import functional

from nas.arch.loading import load_spec
from nas.files import write_text
from nas.latency.device import Device
from nas.models.mobilenet import build_model
from nas.models.small_maps import use_small_map_convolutions
from nas.training.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "large_maps.json"
NETWORKS = {"Channel-Bench-Macro's largest, 128 images of 32 px": (channel_bench_macro_spec("4444444"), 128)} | {
    f"MobileNetV3-Large, {images} images of {side} px": (load_spec("mobilenet_v3_large", resolution=side), images)
    for side, images in ((224, 16), (64, 64))
}
# Of a way: whether memory is kept, whether it computes in bfloat16, and whether by the project's convolutions.
WAYS = {
    "as torch does": (False, False, True),
    "memory kept": (True, False, True),
    "bfloat16, as torch does": (False, True, False),
    "bfloat16, memory kept": (True, True, False),
    "bfloat16, memory kept, strided depthwise in float32": (True, True, True),
}
ROUNDS, STEPS = 3, 2


def time_step(connection: Any, name: str, kept: bool, bf16: bool, own: bool) -> None:
    """Send the seconds of a step through a connection each time that it asks for them."""
    if kept:
        assert keep_freed_memory()
    spec, images = NETWORKS[name]
    model = build_model(spec, 10, 0.0).to(memory_format=torch.channels_last)
    if own:
        use_small_map_convolutions(model)
    pictures = torch.randn(images, 3, spec.resolution, spec.resolution).contiguous(memory_format=torch.channels_last)
    labels, optimizer = torch.randint(10, (images,)), torch.optim.AdamW(model.parameters(), 1e-4)
    while connection.recv():
        begun = time.perf_counter()
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = functional.cross_entropy(model(pictures), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        connection.send((time.perf_counter() - begun) / STEPS)


def timed(name: str) -> dict[str, float]:
    """Return the milliseconds of a step of each way: the fastest of all rounds but the first."""
    spawn, workers = multiprocessing.get_context("spawn"), {}
    for way, settings in WAYS.items():
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=time_step, args=(theirs, name, *settings))
        process.start()
        workers[way] = ours, process
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(1 + ROUNDS):
        for way, (connection, _) in workers.items():
            connection.send(True)
            found[way].append(connection.recv())
    for connection, process in workers.values():
        connection.send(False)
        process.join()
    return {way: round(1000 * min(seconds[1:]), 1) for way, seconds in found.items()}


def main() -> None:
    device = Device.this()
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": device.cpu, "cores": device.cores, "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "ms": {},
    }
    print("| network | " + " | ".join(WAYS) + " |\n" + "|---" * (1 + len(WAYS)) + "|")
    for name in NETWORKS:
        report["ms"][name] = times = timed(name)
        first = times["as torch does"]
        print(
            f"| {name} | " + " | ".join(f"{ms:.0f} ms ({ms / first:.2f})" for ms in times.values()) + " |", flush=True
        )
    write_text(RESULTS, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
