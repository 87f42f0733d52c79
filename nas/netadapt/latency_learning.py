"""Let a latency table learn how the rows of a seed's cuts add up, before the first cut.

Small images show why: a network of megabytes of weights is bound by reading them, and its rows find theirs in the
core's cache. The sum of rows is too low there, and by how much depends on what a cut leaves
(`benchmarks/netadapt_truth.py`).
"""

from __future__ import annotations

import math

import numpy as np

from nas.arch.spec import ArchSpec
from nas.latency.predictor import LatencyPredictor
from nas.latency.timing import LEARNING_RULE
from nas.netadapt.narrowing import cuts_within

NETWORKS = 16  # random ones that are measured
SHARES = 20  # of the seed's latency, in equal steps: runs to about the same share measure the same networks


def learn_latency(predictor: LatencyPredictor, seed: ArchSpec, share: float, allow: tuple[str, ...]) -> None:
    """Measure networks that are cut from a seed at random, whole, and their rows: the table learns from them.

    They are those around a trimming to a `share` of the seed's latency, by the cuts of `Rules.allow`. The seed and the
    narrowest network are among them: the table is to predict what lies between. What the table knows surely is not
    measured again, and nothing is for a table of another device.
    """
    if not predictor.fills:
        return
    cuts = cuts_within(seed, math.ceil(SHARES * share) / SHARES, allow, predictor.table.num_classes)
    rng = np.random.default_rng(predictor.seed)
    drawn = [cuts.spec, cuts.uniform(cuts.least_share), *(cuts.random(rng) for _ in range(NETWORKS))]
    new = [spec for spec in dict.fromkeys(drawn) if not predictor.is_sure(spec)]
    if new:
        predictor.predict_ms(new)  # measures their rows
        predictor.measure(new, "measuring random cuts", LEARNING_RULE)
