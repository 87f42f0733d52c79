"""Estimate MobileNetV4 by the ImageNet prior with one addend for its family, learnt from its other sizes.

    python benchmarks/mobilenet_v4_addend.py

takes a second and prints how far each size is off. It writes the figures to
benchmarks/results/mobilenet_v4_addend.json. They are why the prior has no estimate of universal and fused blocks.

Each block is described as an MBConv of the larger of its kernels, 3 where it has none. Three sizes were published, so
that the addend of each is the mean of those of the two others. It holds the difference of the trainings as well.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from nas.accuracy.imagenet_prior import ImageNetPrior, is_judged
from nas.arch.published import PublishedResult, published_results
from nas.arch.spec import ArchSpec
from nas.files import write_text

RESULTS = Path(__file__).parent / "results" / "mobilenet_v4_addend.json"
LEVEL = "timm-ra4"  # the training of timm that is most like that of its MobileNetV4


def as_mbconv(spec: ArchSpec) -> ArchSpec:
    """Return the network with an MBConv in place of each block, as the prior's features can describe it."""
    blocks = (
        block.replace(
            op="mbconv", kernel=max(block.kernel, block.start_kernel) or 3, start_kernel=0, activate_output=False
        )
        for block in spec.blocks
    )
    return spec.replace(blocks=tuple(blocks))


def main() -> None:
    prior = ImageNetPrior(LEVEL)
    sizes: defaultdict[str, list[PublishedResult]] = defaultdict(list)
    for result in published_results():
        if not is_judged(result.spec):
            sizes[result.spec.name].append(result)
    top1 = {name: np.array([result.top1 for result in results]) for name, results in sizes.items()}
    score = {name: prior.score([as_mbconv(result.spec) for result in results]) for name, results in sizes.items()}
    addends = {name: float((-np.log(100 - top1[name]) - score[name]).mean()) for name in sizes}
    report = {
        "date": datetime.date.today().isoformat(),
        "recipe_level": LEVEL,
        "sizes": {
            name: {
                "rows": len(results),
                "error_without_addend": _points(prior.link(score[name]) - top1[name]),
                "addend_of_its_own": round(addends[name], 3),
                "addend_of_the_others": round(others := _mean_of_others(addends, name), 3),
                "error_with_the_addend_of_the_others": _points(prior.link(score[name] + others) - top1[name]),
            }
            for name, results in sizes.items()
        },
    }
    text = json.dumps(report, indent=1)
    write_text(RESULTS, text + "\n")
    print(text)


def _mean_of_others(addends: dict[str, float], left_out: str) -> float:
    return float(np.mean([addend for name, addend in addends.items() if name != left_out]))


def _points(errors: np.ndarray) -> float:
    """Return the mean error in points of top-1."""
    return round(float(errors.mean()), 2)


if __name__ == "__main__":
    main()
