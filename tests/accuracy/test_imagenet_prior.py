import random
import subprocess
import sys

import numpy as np
import pytest
from support.fine_view import sample_fine_view

from nas.accuracy.estimator import NoEstimateError
from nas.accuracy.features import SegmentPlace, segment_places
from nas.accuracy.imagenet_prior import RECIPE_LEVELS, ImageNetPrior, judged_results, recipe_level_of, slot_places
from nas.arch.loading import load_space, load_spec
from nas.arch.published import published_results
from nas.arch.skeleton import RESOLUTIONS, WIDTHS
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError

PRIOR = ImageNetPrior()
SPACES = ("mobilenet_v3_large", "mobilenet_v3_small", "once_for_all", "mobilenet_v3_small_images")


def top1(spec: ArchSpec) -> float:
    return float(PRIOR.estimate([spec]).top1[0])


def random_encodings(space, count, seed=0):
    rng = random.Random(seed)
    return np.stack([space.build_encoding(lambda decision: rng.randrange(len(decision.choices))) for _ in range(count)])


@pytest.mark.parametrize("name", SPACES)
def test_compiled_space_gives_the_numbers_of_estimate(name):
    space = load_space(name)
    encodings = random_encodings(space, 300)
    assert np.allclose(PRIOR.compile(space)(encodings), PRIOR.estimate(space.decode(encodings)).top1, rtol=0, atol=1e-9)


def test_compiled_restricted_space_at_another_level():
    prior = ImageNetPrior("once-for-all-25")
    space = load_space("mobilenet_v3_small").at([(0.5, 128), (1.0, 224)])
    encodings = random_encodings(space, 100)
    assert np.allclose(prior.compile(space)(encodings), prior.estimate(space.decode(encodings)).top1, rtol=0, atol=1e-9)


def test_places_of_slots_are_those_of_the_decoded_network():
    for name in ("mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v3_small_images"):
        for width in WIDTHS:
            space = load_space(name)
            space = space.at([(width, space.resolutions[-1])])
            deepest = space.build_encoding(lambda decision: len(decision.choices) - 1)
            decoded = segment_places(space.decode([deepest])[0])[1:]
            for place, slot_place in zip(decoded, slot_places(space, space.variants[0]).values(), strict=True):
                assert place.segment == slot_place.segment
                # In merged stages only the position of the first block matters.
                assert place == slot_place or (place.segment == "s16" and min(place.position, slot_place.position) > 0)


def test_published_mobilenet_v3_comes_out_as_published():
    rows = [
        row for row in judged_results() if row.spec.name.split("@")[0] in ("mobilenet_v3_large", "mobilenet_v3_small")
    ]
    rows = [row for row in rows if row.recipe == "slim"]
    assert len(rows) == 10
    error = PRIOR.estimate([row.spec for row in rows]).top1 - [row.top1 for row in rows]
    assert np.abs(error).max() < 0.5


def test_more_is_never_less():
    """Expansion, kernel, stage width, resolution, SE and h-swish, one at a time, on random fine networks."""
    rng = random.Random(1)
    for name in SPACES:
        for _ in range(40):
            spec = sample_fine_view(load_space(name), rng)
            index = rng.randrange(1, len(spec.blocks))
            block = spec.blocks[index]
            better = [spec.with_block(index, expanded=block.expanded + 8)]
            better.append(spec.with_block(index, kernel=min(7, block.kernel + 2)))
            better.append(spec.with_block(index, activation="hswish"))
            better.append(spec.with_block(index, se=max(8, block.se)))
            better.append(spec.replace(resolution=spec.resolution + 32))
            tied = [i for i, b in enumerate(spec.blocks) if i and b.out == block.out and _tied(spec, i, index)]
            wider = list(spec.blocks)
            for i in tied:
                wider[i] = wider[i].replace(out=block.out + 8)
            if all(wider[i].out != wider[i - 1].out or i in tied for i in range(1, len(wider))):
                better.append(spec.replace(blocks=tuple(wider)))
            estimates = PRIOR.estimate([spec, *better]).top1
            assert (estimates[1:] >= estimates[0] - 1e-9).all(), (spec, estimates)


def _tied(spec: ArchSpec, i: int, j: int) -> bool:
    """Return whether blocks i and j share their output channels through residuals."""
    low, high = sorted((i, j))
    placed = list(spec.walk())
    return all(placed[k].has_residual for k in range(low + 1, high + 1))


def test_a_longer_training_is_stated_and_comparable():
    spec = load_spec("mobilenet_v3_large")
    scratch, tuned = PRIOR, ImageNetPrior("once-for-all-75")
    assert tuned.estimate([spec]).top1[0] > scratch.estimate([spec]).top1[0] + 0.5
    assert "75 epochs" in tuned.training_recipe
    assert "MobileNetV3" in scratch.training_recipe


def test_unknown_level_lists_the_known_ones():
    with pytest.raises(NasError, match=r"recipe level 'best'.*mobilenet-v3"):
        ImageNetPrior("best")


@pytest.mark.parametrize("level", RECIPE_LEVELS)
def test_every_level_answers(level):
    estimates = ImageNetPrior(level).estimate([load_spec("mobilenet_v3_small")])
    assert 60 < estimates.top1[0] < (73 if level == "distilled" else 72)
    assert 0.1 < estimates.std[0] < 2


def test_networks_unlike_the_fitted_ones_are_flagged_and_less_certain():
    known = load_spec("mobilenet_v3_large")
    strange = [
        known.replace(resolution=448),
        known.with_block(4, kernel=9),
        known.with_block(4, expanded=2000),
        load_spec("mobilenet_v1"),
        known.replace(blocks=known.blocks[:-3]),  # nothing at stride 32
    ]
    strange.append(known.replace(stem=StemSpec(out=16, stride=1)))
    estimates = PRIOR.estimate([known, *strange])
    assert estimates.extrapolated.tolist() == [False, *[True] * len(strange)]
    assert (estimates.std[1:] > estimates.std[0]).all()
    assert not estimates.diverged.any()


def test_a_stem_of_stride_1_is_estimated_as_twice_the_resolution():
    spec = load_space("mobilenet_v3_small_images").largest((1.0, 96))
    usual = spec.replace(resolution=192, stem=StemSpec(out=16))
    for level in ("mobilenet-v3", "once-for-all-25"):
        estimates = ImageNetPrior(level).estimate([spec, usual])
        assert estimates.top1[0] == pytest.approx(estimates.top1[1], abs=1e-9)
        assert estimates.std[0] > estimates.std[1]


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "mobilenetv4_conv_small_050", "mobilenetv4_conv_medium"])
def test_a_network_of_universal_blocks_has_no_estimate(name):
    known, unknown = load_spec("mobilenet_v3_small"), load_spec(name)
    for asked in ([unknown], [known, unknown]):
        for ask in (PRIOR.estimate, PRIOR.score):
            with pytest.raises(
                NoEstimateError, match=f"{name}: imagenet-prior has no estimate of it, .* fused"
            ) as caught:
                ask(asked)
            assert "\n" not in str(caught.value)
    assert set(published_results()) - set(judged_results()) == {
        result for result in published_results() if "mobilenetv4" in result.spec.name
    }


def test_the_link_increases():
    scores = np.linspace(-4.2, -2.8, 9)
    assert (np.diff(PRIOR.link(scores)) > 0).all()


def test_every_published_network_has_an_estimate_at_its_level():
    results = judged_results()
    assert {recipe_level_of(result) for result in results} <= set(RECIPE_LEVELS)
    for level in RECIPE_LEVELS:
        rows = [result for result in results if recipe_level_of(result) == level]
        if rows:
            estimates = ImageNetPrior(level).estimate([row.spec for row in rows])
            assert np.abs(estimates.top1 - [row.top1 for row in rows]).max() < 3
            assert (np.abs(estimates.top1 - [row.top1 for row in rows]) < 4 * estimates.std).all()


def test_squeeze_and_excitation_and_h_swish_everywhere_gain_a_believable_amount():
    """SE and h-swish in every block of MobileNetV3-Large: a search takes both wherever it can.

    SE alone, in all 16 blocks of MobileNetV2, gained 1.2 points (arXiv 2103.02907). MobileNetV3-Large lacks it in 6.
    """
    spec = load_spec("mobilenet_v3_large")
    everywhere = spec.replace(
        blocks=(spec.blocks[0], *(b.replace(se=b.se or 16, activation="hswish") for b in spec.blocks[1:]))
    )
    assert 0.1 < top1(everywhere) - top1(spec) < 1.0


def test_places_of_networks_with_one_stage_at_stride_16_and_a_long_one():
    block = BlockSpec(kernel=3, expanded=48, out=16)
    spec = ArchSpec(
        name="x",
        resolution=64,
        stem=StemSpec(out=16),
        blocks=(block, block.replace(stride=2), block.replace(stride=2), block.replace(stride=2), block, block),
        head=HeadSpec(conv=96),
    )
    assert segment_places(spec) == [
        *(SegmentPlace(name, 0) for name in ("s2", "s4", "s8")),
        *(SegmentPlace("s16", p) for p in range(3)),
    ]


def test_stages_that_merge_elsewhere_than_at_stride_16_are_refused():
    space = load_space("mobilenet_v3_large")
    stages = list(space.stages)
    stages.insert(1, stages[0].__class__(out=24, stride=1))
    with pytest.raises(NasError, match="stage 2 has the same channels as the stage before"):
        PRIOR.additive_model(
            type(space)(name="x", stem=space.stem, first=space.first, stages=tuple(stages), head=space.head)
        )


def test_import_needs_neither_torch_nor_scipy():
    code = "import sys, nas.accuracy.imagenet_prior; print([m for m in ('torch', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_extremes_of_the_spaces_stay_believable():
    large, small = (load_space(name) for name in ("mobilenet_v3_large", "mobilenet_v3_small"))
    for space in (large, small):
        for width in (min(WIDTHS), max(WIDTHS)):
            for resolution in (min(RESOLUTIONS), max(RESOLUTIONS)):
                view = space.at([(width, resolution)])
                least, most = (
                    view.decode([view.build_encoding(lambda decision, end=end: end(len(decision.choices)))])[0]
                    for end in (lambda n: 0, lambda n: n - 1)
                )
                low, high = PRIOR.estimate([least, most]).top1
                assert 15 < low < high < 83, (space.name, width, resolution, low, high)
