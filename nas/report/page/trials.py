"""Pack the trials of a run so that ten thousand of them take a few hundred kilobytes of the page."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nas.report.texts import title_of
from nas.runs.reading import Run
from nas.runs.record import TargetResult

FIRST_CODE, CODES = 40, 86  # the printable characters from "(" on
PROPERTIES = ("depth", "kernel", "expansion", "SE", "h-swish")


class _Block(NamedTuple):
    """A block as trials.csv has it."""

    kernel: int
    expanded: int
    out: int
    stride: int
    se: int
    activation: str

    @classmethod
    def of(cls, text: str) -> _Block:
        kernel, expanded, out, stride, se, activation = text.split(",")
        return cls(int(kernel), int(expanded), int(out), int(stride), int(se), activation)


def trials_data(run: Run) -> list[dict[str, Any]]:
    """Return the trials of each skeleton, a column a property; the trials of a target stand in their order.

    A column of few values is a text with one character a trial and the list of the values. Milliseconds are whole
    microseconds there, percent are hundredths.
    """
    by_skeleton: dict[str, list[TargetResult]] = {}
    for result in run.record.targets:
        by_skeleton.setdefault(result.target.skeleton, []).append(result)
    return [_skeleton_data(run, skeleton, results) for skeleton, results in by_skeleton.items()]


def _skeleton_data(run: Run, skeleton: str, results: Sequence[TargetResult]) -> dict[str, Any]:
    frames = [run.trials[run.trials.target == result.target.name] for result in results]
    trials = pd.concat(frames)
    stages = _stages(trials.blocks.tolist())
    count = max((len(one) for one in stages if one is not None), default=0)
    return {
        "skeleton": skeleton,
        "title": title_of(skeleton),
        "count": len(trials),
        "targets": [
            {
                "title": result.target.title,
                "count": len(frame),
                "limit": result.optimum.limit_ms if result.optimum else result.target.limit_ms,
                "optimum": result.optimum.best.top1 if result.optimum else None,
            }
            for result, frame in zip(results, frames, strict=True)
        ],
        "stage": packed(trials.stage.tolist()),
        "ms": _whole(trials.latency_ms, 1000),
        "top1": _whole(trials.top1, 100),
        "std": packed(trials.top1_std.round(2).tolist()),
        "px": packed(trials.resolution.tolist()),
        "out": packed([_last_out(blocks) for blocks in trials.blocks.tolist()]),
        "macs": _whole(trials.macs, 1e-5),
        "params": _whole(trials.params, 1e-4),
        "properties": {
            name: [packed([None if one is None else one[stage][number] for one in stages]) for stage in range(count)]
            for number, name in enumerate(PROPERTIES)
        },
    }


def packed(values: Sequence[Any]) -> dict[str, Any] | list[Any]:
    """Return a column as the list of its values and a character a row, or as it is if it has many values."""
    known = list(dict.fromkeys(values))
    if len(known) > CODES:
        return list(values)
    code = {value: chr(FIRST_CODE + number) for number, value in enumerate(known)}
    return {"values": known, "codes": "".join(code[value] for value in values)}


def _whole(column: pd.Series, factor: float) -> list[int]:
    whole: list[int] = np.rint(column.to_numpy(float) * factor).astype(np.int64).tolist()
    return whole


def _last_out(text: str) -> int | None:
    try:
        return _Block.of(text.rpartition(";")[2]).out
    except ValueError:
        return None


_Properties = tuple[float, ...]  # of a stage, as PROPERTIES names them


def _stages(texts: Iterable[str]) -> list[list[_Properties] | None]:
    """Return the properties of each stage of each network.

    None stands for a network with another number of stages than most: where trimming made the channels of two stages
    equal they look like one.
    """
    blocks: dict[str, _Block] = {}
    summed: dict[tuple[str, ...], _Properties] = {}
    found = [_stages_of(text, blocks, summed) for text in texts]
    numbers = Counter(len(one) for one in found if one is not None)
    usual = numbers.most_common(1)[0][0] if numbers else 0
    return [one if one is not None and len(one) == usual else None for one in found]


def _stages_of(
    text: str, blocks: dict[str, _Block], summed: dict[tuple[str, ...], _Properties]
) -> list[_Properties] | None:
    """Return the properties of each stage of one network, counted as in a space; None for a text that is no network.

    The fixed first block belongs to no stage. What was read and summed before is looked up.
    """
    words = text.split(";")
    try:
        for word in words:
            if word not in blocks:
                blocks[word] = _Block.of(word)
    except ValueError:
        return None
    stages: list[list[str]] = []
    for before, word in itertools.pairwise(words):
        if not stages or blocks[word].stride > 1 or blocks[word].out != blocks[before].out:
            stages.append([])
        stages[-1].append(word)
    properties, in_channels = [], blocks[words[0]].out
    for stage in stages:
        key = (str(in_channels), *stage)
        if key not in summed:
            summed[key] = _properties([blocks[word] for word in stage], in_channels)
        properties.append(summed[key])
        in_channels = blocks[stage[-1]].out
    return properties


def _properties(stage: Sequence[_Block], in_channels: int) -> _Properties:
    inputs = [in_channels, *(block.out for block in stage)]
    expansions = [block.expanded / channels for block, channels in zip(stage, inputs, strict=False)]
    return (
        len(stage),
        round(sum(block.kernel for block in stage) / len(stage), 2),
        round(sum(expansions) / len(stage), 1),
        sum(block.se > 0 for block in stage),
        sum(block.activation == "h" for block in stage),
    )
