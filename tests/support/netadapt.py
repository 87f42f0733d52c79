"""Latencies and accuracies for NetAdapt that are computed in no time."""

from collections.abc import Iterator, Sequence

import numpy as np

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.netadapt.algorithm import NetAdaptStep, first_step, trim_until_measured
from nas.netadapt.proposals import PAPER_RULES, STEP_SHARE, Predict, Proposal, Rules, make_proposals
from support.synthetic import network_ms

_PRIOR = ImageNetPrior()


def predict_ms(specs: Sequence[ArchSpec]) -> np.ndarray:
    """Return latencies (ms) with the stairs of a vector unit."""
    return np.array([network_ms(spec) for spec in specs])


def estimate(specs: Sequence[ArchSpec]) -> np.ndarray:
    """Return the ImageNet prior's estimates of top-1 (percent)."""
    return _PRIOR.estimate(specs).top1


def cuts(spec: ArchSpec, share: float = STEP_SHARE, rules: Rules = PAPER_RULES) -> list[Proposal]:
    """Return the proposals that save at least a share of the latency."""
    return make_proposals(spec, share * predict_ms([spec])[0], predict_ms, rules)


def place_of(cut: str) -> str:
    """Return the part of a cut's name that says where it is, such as "block 3: expanded 96"."""
    return cut.partition(" to ")[0]


def width_of(cut: str) -> int:
    """Return the width after a cut, by its name."""
    return int(cut.rpartition(" ")[2])


def chain(channels: int, *blocks: BlockSpec) -> ArchSpec:
    first = BlockSpec(kernel=3, expanded=16, out=channels, stride=2)
    return ArchSpec(name="chain", resolution=64, stem=StemSpec(out=16), blocks=(first, *blocks), head=HeadSpec(conv=64))


def trimmed(
    seed: ArchSpec, limit_ms: float, estimate: Predict = estimate, rules: Rules = PAPER_RULES
) -> Iterator[NetAdaptStep]:
    """Yield the steps until the predicted latency keeps the limit, the seed's first."""
    first = first_step(seed, predict_ms, estimate)
    yield first
    yield from trim_until_measured([first], limit_ms, predict_ms=predict_ms, estimate=estimate, rules=rules)
