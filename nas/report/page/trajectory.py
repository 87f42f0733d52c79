"""Collect NetAdapt's trajectories: the networks that trimming went through, step by step."""

from __future__ import annotations

from typing import Any

from nas.runs.reading import Run

STAGES = ("netadapt", "finalist")  # of the log, a number of the attempt behind them
NEW_SEED = 1.01  # a step never makes a network so much slower: another seed's trimming begins there


def trajectories(run: Run) -> list[dict[str, Any]]:
    """Return one trajectory a seed, with its predicted ms and its estimated top-1 in percent, in the order of steps."""
    found = []
    for result in run.record.targets:
        own = run.trials[(run.trials.target == result.target.name) & run.trials.stage.str.startswith(STAGES)]
        for stage, steps in own.groupby("stage", sort=False):
            begins = steps.latency_ms > NEW_SEED * steps.latency_ms.shift(fill_value=float("inf"))
            for number, (_, part) in enumerate(steps.groupby(begins.cumsum()), 1):
                found.append(
                    {
                        "title": f"{result.target.title}, {stage}, network {number}",
                        "skeleton": result.target.skeleton,
                        "ms": part.latency_ms.round(4).tolist(),
                        "top1": part.top1.round(3).tolist(),
                        "std": part.top1_std.round(3).tolist(),
                        "px": part.resolution.tolist(),
                        "macs": part.macs.tolist(),
                        "params": part.params.tolist(),
                    }
                )
    return found
