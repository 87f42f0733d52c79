"""Problems small enough to know every answer, and one of real size; priced part by part, like a table."""

import functools
import itertools
import random
from collections.abc import Callable, Iterator

import numpy as np
from synthetic import added_ms

from nas.additive import BlockSums
from nas.parts import BlockPart, parts_of
from nas.registry import load_space
from nas.space import SearchSpace, Slot, Stage
from nas.spec import BlockSpec, HeadSpec, PlacedBlock, StemSpec
from nas.strategies.limits import Limit, Row
from nas.strategies.problem import Problem

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


def block_sums(space: SearchSpace, price: Callable[[PlacedBlock], float], constants: list[float]) -> BlockSums:
    options = [
        np.array([[price(placed) for placed in space.options(scale, slot)] for scale in space.scales])
        for slot in space.slots
    ]
    return BlockSums(space, np.array(constants), options)


def latency(space: SearchSpace, noise: float = 0.0) -> BlockSums:
    """Milliseconds of the synthetic machine, each part's off by its own share of up to `noise`: then
    options that are dearer in every choice can be cheaper, as in a table that was measured."""

    def price(part: object) -> float:
        return added_ms(part) * (1 + noise * random.Random(part.key).uniform(-1, 1))

    def fixed(scale: tuple[float, int]) -> float:
        parts = list(parts_of(space.smallest(scale)))
        return sum(map(price, (*parts[:2], parts[-1])))

    return block_sums(space, lambda placed: price(BlockPart(*placed)), [fixed(scale) for scale in space.scales])


def score(space: SearchSpace) -> BlockSums:
    """More for more work, but unlike the latency: each block is worth something of its own."""

    def worth(placed: PlacedBlock) -> float:
        macs = sum(layer.macs for layer in BlockPart(*placed).layers())
        return macs**0.3 * random.Random(BlockPart(*placed).key).uniform(0.5, 1.5) / 100

    return block_sums(space, worth, [scale.resolution**0.5 for scale in space.scales])


def within(prices: BlockSums, budget_ms: float) -> list[Limit]:
    return [Limit("latency", budget_ms, prices)]


def problem(space: SearchSpace, share: float, noise: float = 0.0) -> Problem:
    """With a budget so far on the way from the fastest to the slowest network."""
    prices, worth = latency(space, noise), score(space)
    slowest = (prices.constants + sum(values.max(axis=1) for values in prices.options)).max()
    free = Problem(space, prices, worth, float(slowest), worth)
    return free.with_budget(float(free._fastest_ms.min() + share * (slowest - free._fastest_ms.min())))


@functools.cache
def real_space() -> SearchSpace:
    return load_space("mobilenet_v3_small").at([(0.35, 96), (1.0, 128)])


def every_row(space: SearchSpace) -> np.ndarray:
    """Every row of codes of a small space: shape (n, genes)."""

    def stage_rows(index: int) -> Iterator[Row]:
        stage = space.stages[index]
        column = space.slot_column(Slot(index, 0))
        choices = [range(len(gene.choices)) for gene in space.genes[column : column + 4]]
        for code, depth in enumerate(stage.depths):
            for blocks in itertools.product(itertools.product(*choices), repeat=depth):
                yield (code, *itertools.chain(*blocks), *[-1] * 4 * (max(stage.depths) - depth))

    stages = [list(stage_rows(index)) for index in range(len(space.stages))]
    return np.array(
        [
            (scale, *itertools.chain(*rows))
            for scale in range(len(space.scales))
            for rows in itertools.product(*stages)
        ]
    )  # fmt: skip
