"""Show what the ImageNet prior makes a search choose: the proven optimum at MobileNetV3-Large's latency.

    python benchmarks/prior_choices.py

takes a minute on one core. It solves the space mobilenet_v3_large with the committed latency table, within the latency
that the table has of MobileNetV3-Large measured whole, and prints the network beside it. It writes both to
benchmarks/results/prior_choices.json.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.loading import load_space, load_spec
from nas.arch.parts import NetworkPart
from nas.arch.spec import ArchSpec
from nas.files import write_text
from nas.latency.fidelity import covered_variants
from nas.latency.table import LatencyTable
from nas.search.limits import Limit
from nas.search.solver import ranking

HERE = Path(__file__).parent
TABLE = HERE / "data" / "latency_table.json"
RESULTS = HERE / "results" / "prior_choices.json"


def described(spec: ArchSpec, prior: ImageNetPrior, milliseconds: float) -> dict[str, Any]:
    """Return a network's estimate and latency, and one text a block: kernel, channels, SE and activation."""
    estimates = prior.estimate([spec])
    return {
        "top1": round(float(estimates.top1[0]), 2),
        "std": round(float(estimates.std[0]), 2),
        "ms": round(milliseconds, 3),
        "resolution": spec.resolution,
        "blocks": [
            f"k{block.kernel} e{block.expanded} o{block.out} s{block.stride}"
            f"{' SE' if block.se else ''} {block.activation}"
            for block in spec.blocks
        ],
        "with_se": sum(block.se > 0 for block in spec.blocks),
        "with_h_swish": sum(block.activation == "hswish" for block in spec.blocks),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    table, prior, published = LatencyTable.load(TABLE), ImageNetPrior(), load_spec("mobilenet_v3_large")
    space = load_space("mobilenet_v3_large")
    space = space.at(covered_variants(table, space))
    measured = table.part_ms(NetworkPart(published, table.num_classes))
    limit = Limit("latency", measured, table.compile(space))
    best = next(ranking(prior.additive_model(space), [limit], range(len(space.variants))))
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "table": f"{table.device.cpu}, {table.runtime}",
        "published": described(published, prior, measured),
        "found": described(space.decode([best.encoding])[0], prior, limit.value(best.encoding)),
    }
    write_text(RESULTS, json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
