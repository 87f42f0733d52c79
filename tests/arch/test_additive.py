"""Additive models against a plain loop over the blocks of the networks."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.arch.additive import AdditiveModel
from nas.arch.cost import block_layers, count_cost
from nas.arch.loading import load_space, space_names
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, PlacedBlock

SEEDS = st.integers(0, 2**32)


def restricted(name: str) -> SearchSpace:
    space = load_space(name)
    return space.at([(space.widths[1], space.resolutions[0]), (space.widths[0], space.resolutions[-1])])


def model_of(space: SearchSpace, value: Callable[[PlacedBlock], float], constants: np.ndarray) -> AdditiveModel:
    options = [
        np.array([[value(placed) for placed in space.options(variant, slot)] for variant in space.variants])
        for slot in space.slots
    ]
    return AdditiveModel(space, constants, options)


def random_values(seed: int) -> Callable[[PlacedBlock], float]:
    """Return a function that gives a number for every block, the same for the same block."""
    rng, values = random.Random(seed), {}  # type: ignore[var-annotated]

    def value(placed: PlacedBlock) -> float:
        return values.setdefault(placed, rng.gauss(0, 1))

    return value


def plain_sum(spec: ArchSpec, value: Callable[[PlacedBlock], float]) -> float:
    return sum(value(placed) for placed in list(spec.walk())[1:])


@given(st.sampled_from(space_names()), SEEDS)
def test_sums_equal_a_plain_loop(name: str, seed: int) -> None:
    rng = random.Random(seed)
    space, value = restricted(name), random_values(seed)
    constants = np.array([rng.random() for _ in space.variants])
    specs = [space.sample(rng) for _ in range(5)]
    encodings = space.encode(specs)
    wanted = [constants[encoding[0]] + plain_sum(spec, value) for spec, encoding in zip(specs, encodings, strict=True)]
    np.testing.assert_allclose(model_of(space, value, constants)(encodings), wanted, rtol=1e-12)


def test_a_cost_of_blocks_is_an_additive_model() -> None:
    """Parameters: stem, first block and head are the constant of a variant."""
    space = load_space("mobilenet_v3_small")

    def params(placed: PlacedBlock) -> int:
        return sum(layer.parameters for layer in block_layers(placed))

    rng = random.Random(0)
    constants = []
    for variant in space.variants:
        spec = space.at([variant]).sample(rng)
        constants.append(count_cost(spec).params - plain_sum(spec, params))
    model = model_of(space, params, np.array(constants))
    specs = [space.sample(rng) for _ in range(200)]
    assert model(space.encode(specs)).tolist() == [count_cost(spec).params for spec in specs]


@pytest.mark.parametrize("rows", [0, 1, 8_191, 8_192, 8_193, 20_000])
def test_chunks_do_not_show(rows: int) -> None:
    space = restricted("mobilenet_v3_small")
    model = model_of(space, random_values(0), np.array([1.0, 2.0]))
    rng = random.Random(0)
    few = np.array([space.build_encoding(lambda decision: rng.randrange(len(decision.choices))) for _ in range(7)])
    encodings = np.resize(few, (rows, few.shape[1])) if rows else few[:0]
    np.testing.assert_array_equal(model(encodings), np.resize(model(few), rows) if rows else np.zeros(0))
    assert model(encodings).shape == (rows,)


def test_encodings_may_be_of_any_integer_type_and_order() -> None:
    space = restricted("mobilenet_v3_large")
    model = model_of(space, random_values(0), np.array([1.0, 2.0]))
    rng = random.Random(0)
    encodings = space.encode([space.sample(rng) for _ in range(50)])
    wanted = model(encodings)
    np.testing.assert_array_equal(model(encodings.astype(np.int64)), wanted)
    np.testing.assert_array_equal(model(encodings.astype(np.int8)), wanted)
    np.testing.assert_array_equal(model(np.asfortranarray(encodings)), wanted)
    np.testing.assert_array_equal(model(np.repeat(encodings, 2, axis=0)[::2]), wanted)


def test_values_of_the_wrong_shape_are_refused() -> None:
    space = restricted("mobilenet_v3_small")
    right = model_of(space, lambda placed: 1.0, np.zeros(2))
    with pytest.raises(AssertionError):
        AdditiveModel(space, np.zeros(3), right.options)
    with pytest.raises(AssertionError):
        AdditiveModel(space, np.zeros(2), right.options[:-1])
    with pytest.raises(AssertionError):
        AdditiveModel(space, np.zeros(2), [values[:, :-1] for values in right.options])
