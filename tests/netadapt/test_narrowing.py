"""Random networks that are cut from one."""

from itertools import pairwise

import numpy as np
import pytest

from nas.arch.cost import count_cost
from nas.arch.loading import load_spec
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec
from nas.netadapt.narrowing import RandomCuts, cuts_within, with_wider_expansions
from nas.netadapt.proposals import EXTRA_CUTS, places_of


@pytest.fixture
def spec() -> ArchSpec:
    return load_spec("mobilenet_v3_large", resolution=64)


def test_places_keep_shares_between_the_least_and_all(spec: ArchSpec) -> None:
    cuts = RandomCuts(spec, 0.4)
    drawn = [cuts.draw(seed) for seed in range(200)]
    for place in cuts.places:
        shares = np.array([place.channels_in(one) / place.channels for one in drawn])
        assert shares.max() == 1
        assert 0.4 - 4 / place.channels <= shares.min() < 0.6
    assert sum(one.id == spec.id for one in drawn) > 5, "the largest one is trained too"
    assert sum(one.id == cuts.uniform(0.4).id for one in drawn) > 5, "and so is the narrowest one"
    assert {one.resolution for one in drawn} == {64}
    assert {tuple(block.kernel for block in one.blocks) for one in drawn} == {tuple(b.kernel for b in spec.blocks)}


def test_the_same_random_seed_draws_the_same_network(spec: ArchSpec) -> None:
    cuts = RandomCuts(spec, 0.4, EXTRA_CUTS)
    assert [cuts.draw(seed).id for seed in range(20)] == [cuts.draw(seed).id for seed in range(20)]
    assert len({cuts.draw(seed).id for seed in range(20)}) > 10


def test_other_cuts_are_drawn_where_they_are_allowed(spec: ArchSpec) -> None:
    drawn = [RandomCuts(spec, 0.4, EXTRA_CUTS).draw(seed) for seed in range(100)]
    for index, block in enumerate(spec.blocks):
        with_se = np.mean([one.blocks[index].se > 0 for one in drawn])
        assert (0.4 < with_se < 0.95) if block.se else with_se == 0
        assert {one.blocks[index].kernel for one in drawn} == {block.kernel, max(3, block.kernel - 2)}
    assert {one.resolution for one in drawn} == {32, 48, 64}
    assert min(one.head.conv for one in drawn) < spec.head.conv


def test_both_kernels_of_universal_blocks_are_cut() -> None:
    medium = published_spec("mobilenetv4_conv_medium")
    drawn = [RandomCuts(medium, 0.4, ("kernel",)).draw(seed) for seed in range(60)]
    for index, block in enumerate(medium.blocks):
        for field in ("kernel", "start_kernel"):
            kernel = getattr(block, field)
            assert {getattr(one.blocks[index], field) for one in drawn} == {kernel, min(kernel, max(3, kernel - 2))}


@pytest.mark.parametrize("share", [0.9, 0.5, 0.26])
def test_the_uniform_width_of_the_share_is_in_the_midst(spec: ArchSpec, share: float) -> None:
    cuts = cuts_within(spec, share, ("head",), 10)
    uniform = cuts.uniform(2 * cuts.least_share)
    macs = [count_cost(one, 10).macs for one in (uniform, spec)]
    assert macs[0] / macs[1] == pytest.approx(share, rel=0.05)


def test_least_shares_fall_with_the_budget(spec: ArchSpec) -> None:
    found = [cuts_within(spec, share, (), 10).least_share for share in (1.0, 0.8, 0.4, 0.2)]
    assert all(more > less for more, less in pairwise(found))
    assert found[0] == pytest.approx(0.5, abs=0.01)


def test_expansions_are_widened_as_far_as_netadapt_may(spec: ArchSpec) -> None:
    wider = with_wider_expansions(spec)
    for block, before in zip(wider.blocks, spec.blocks, strict=True):
        assert before.expanded <= block.expanded < before.expanded + 16
        assert block.op != "mbconv" or not block.expanded % 16
    narrow = published_spec("mobilenet_v2")
    assert with_wider_expansions(narrow).id == narrow.id, "nothing to widen"
    assert len(places_of(wider)) == len(places_of(spec))
