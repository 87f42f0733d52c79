"""Problems small enough to know every answer, and one of real size; latencies and scores are sums over parts."""

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nas.accuracy.estimator import Estimates
from nas.arch.additive import AdditiveModel
from nas.arch.encoding import Encoding
from nas.arch.loading import load_space
from nas.arch.parts import BlockPart, parts_of
from nas.arch.skeleton import Slot, Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, PlacedBlock, StemSpec
from nas.search.limits import Limit
from nas.search.problem import Problem
from support.synthetic import added_ms

RELU = ("relu",)
# Two stages that run together at width 1 (24 channels, no stride), and one whose depths leave out 2.
TINY = SearchSpace(
    name="tiny",
    stem=StemSpec(out=8),
    first=BlockSpec(op="sepconv", kernel=3, expanded=8, out=8),
    stages=(
        Stage(out=16, stride=2, depths=(1, 3), kernels=(3, 5), expansions=(2, 3), se=(False,), activations=RELU),
        Stage(out=24, stride=2, depths=(1, 2), kernels=(3, 5), expansions=(3,), se=(False, True), activations=RELU),
        Stage(out=24, stride=1, depths=(1, 2), kernels=(3,), expansions=(3,), se=(False, True), activations=RELU),
    ),
    head=HeadSpec(conv=144, hidden=64),
    widths=(1.0, 2.0),
    resolutions=(32, 64),
).at([(1.0, 32), (1.0, 64), (2.0, 32)])


def additive_model(space: SearchSpace, value: Callable[[PlacedBlock], float], constants: list[float]) -> AdditiveModel:
    options = [
        np.array([[value(placed) for placed in space.options(variant, slot)] for variant in space.variants])
        for slot in space.slots
    ]
    return AdditiveModel(space, np.array(constants), options)


def latency(space: SearchSpace, noise: float = 0.0) -> AdditiveModel:
    """Return milliseconds of the synthetic machine, each part's off by its own share of up to `noise`.

    With noise, an option can be faster though each of its choices is slower, as in a measured table.
    """

    def part_ms(part: object) -> float:
        return added_ms(part) * (1 + noise * random.Random(part.key).uniform(-1, 1))

    def fixed(variant: tuple[float, int]) -> float:
        parts = list(parts_of(space.smallest(variant)))
        return sum(map(part_ms, (*parts[:2], parts[-1])))

    return additive_model(
        space, lambda placed: part_ms(BlockPart(*placed)), [fixed(variant) for variant in space.variants]
    )


def score(space: SearchSpace) -> AdditiveModel:
    """Return a score that grows with the work of a network, though each block has a factor of its own."""

    def block_score(placed: PlacedBlock) -> float:
        macs = sum(layer.macs for layer in BlockPart(*placed).layers())
        return macs**0.3 * random.Random(BlockPart(*placed).key).uniform(0.5, 1.5) / 100

    return additive_model(space, block_score, [variant.resolution**0.5 for variant in space.variants])


def estimates_of(model: AdditiveModel) -> Callable[[Sequence[ArchSpec]], Estimates]:
    """Return an estimator's `estimate` that gives a sum over blocks as top-1."""

    def estimate(specs: Sequence[ArchSpec]) -> Estimates:
        top1 = model(model.space.encode(specs))
        none = np.zeros(len(specs), bool)
        return Estimates(top1, np.zeros(len(specs)), none, none)

    return estimate


def within(latencies: AdditiveModel, limit_ms: float) -> list[Limit]:
    return [Limit("latency", limit_ms, latencies)]


def latency_ms(model: AdditiveModel, encoding: Encoding) -> float:
    return float(model(np.array([encoding]))[0])


def problem(space: SearchSpace, share: float, noise: float = 0.0) -> Problem:
    """Return a problem whose limit lies at a share of the way from the fastest to the slowest network."""
    latencies, accuracy = latency(space, noise), score(space)
    slowest = (latencies.constants + sum(values.max(axis=1) for values in latencies.options)).max()
    free = Problem(space, latencies, estimates_of(accuracy), float(slowest), accuracy)
    return free.with_limit(float(free._fastest_ms.min() + share * (slowest - free._fastest_ms.min())))


@functools.cache
def real_space() -> SearchSpace:
    return load_space("mobilenet_v3_small").at([(0.35, 96), (1.0, 128)])


def every_encoding(space: SearchSpace) -> np.ndarray:
    """Return every encoding of a small space: shape (n, decisions)."""

    def stage_encodings(index: int) -> Iterator[Encoding]:
        stage = space.stages[index]
        column = space.slot_column(Slot(index, 0))
        choices = [range(len(decision.choices)) for decision in space.decisions[column : column + 4]]
        for choice, depth in enumerate(stage.depths):
            for blocks in itertools.product(itertools.product(*choices), repeat=depth):
                yield (choice, *itertools.chain(*blocks), *[-1] * 4 * (max(stage.depths) - depth))

    stages = [list(stage_encodings(index)) for index in range(len(space.stages))]
    return np.array(
        [
            (variant, *itertools.chain(*per_stage))
            for variant in range(len(space.variants))
            for per_stage in itertools.product(*stages)
        ]
    )  # fmt: skip
