"""Let a latency table learn how the rows of a seed's cuts add up, before the first cut.

Small images show why: a network of megabytes of weights is bound by reading them, and its rows find theirs in the
core's cache. The sum of rows is too low there, and by how much depends on what a cut leaves
(`benchmarks/netadapt_truth.py`).
"""

from __future__ import annotations

import numpy as np

from nas.latency.predictor import LatencyPredictor
from nas.latency.timing import LEARNING_RULE
from nas.netadapt.narrowing import RandomCuts

NETWORKS = 16  # random ones that are measured


def learn_latency(predictor: LatencyPredictor, cuts: RandomCuts) -> None:
    """Measure networks that are cut at random whole, and their rows, so that the predictor's table learns from them.

    The seed and the narrowest network are among them: the table is to predict what lies between.

    What the table knows is not measured again, and nothing is for a table of another device.
    """
    if not predictor.fills:
        return
    rng = np.random.default_rng(predictor.seed)
    drawn = [cuts.spec, cuts.uniform(cuts.least_share), *(cuts.random(rng) for _ in range(NETWORKS))]
    new = [spec for spec in drawn if not predictor.table.knows(predictor.network(spec))]
    if new:
        predictor.predict_ms(new)  # measures their rows
        predictor.measure(new, "measuring random cuts", LEARNING_RULE)
