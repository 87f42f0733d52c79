"""Learning from networks that are made up: their times follow from coefficients that are known."""

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from nas.arch.loading import load_space
from nas.arch.parts import BlockPart, parts_of
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec, BlockSpec
from nas.latency.learning import (
    ADDENDS,
    CONTRADICTION,
    LEAST,
    MIN_LEFT,
    MISFITS,
    PRIOR,
    Correction,
    Evidence,
    Feature,
    Term,
    features_of,
    learn,
)

SPACE = load_space("mobilenet_v3_small").at([(1.0, 96), (1.0, 128)])
ERROR = 0.002  # of a measurement, relative


def row_ratio(part: object) -> float:
    """Return a made-up time of a part, the same in each network."""
    return random.Random(str(part)).uniform(0.01, 0.05)


def terms_of(spec: ArchSpec, session: int = 1) -> list[Term]:
    return [Term(part, row_ratio(part), session) for part in parts_of(spec)]


def networks(number: int, seed: int = 0) -> list[ArchSpec]:
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(number)]


def true_ratio(terms: Sequence[Term], coefficients: Mapping[Feature, float]) -> float:
    """Return the time of a network whose rows are off by these coefficients."""
    features = features_of(terms)
    return sum(term.ratio for term in terms) + sum(
        features.get(feature, 0.0) * value for feature, value in coefficients.items()
    )


def made_up(
    specs: Sequence[ArchSpec], coefficients: Mapping[Feature, float], session: int = 1, error: float = ERROR
) -> list[Evidence]:
    found = []
    for number, spec in enumerate(specs):
        terms = terms_of(spec, session)
        found.append(Evidence(f"network {number}", terms, true_ratio(terms, coefficients), error))
    return found


def raw(terms: Sequence[Term]) -> float:
    return sum(term.ratio for term in terms)


# Coefficients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "coefficients",
    [{}, {("common", ""): 0.1}, {("common", ""): -0.08, ("kernel", "5"): 0.06, ("se", "True"): -0.04}],
    ids=["none", "common", "three"],
)
def test_networks_that_were_left_out_follow_the_coefficients(coefficients: dict[Feature, float]) -> None:
    correction = learn(made_up(networks(150), coefficients))
    for spec in networks(30, seed=1):
        terms = terms_of(spec)
        assert correction.predict(terms).time == pytest.approx(true_ratio(terms, coefficients), rel=0.005)


def test_what_differs_between_blocks_is_told_apart() -> None:
    """A kernel of 5 costs a tenth more than its row says, one of 3 does not."""
    correction = learn(made_up(networks(150), {("kernel", "5"): 0.1}))
    factor = {}
    for kernel in (3, 5):
        part = BlockPart(BlockSpec(kernel=kernel, expanded=144, out=40), 40, 6)
        factor[kernel] = correction.ratio(Term(part, 0.03, 1)) / 0.03
    assert factor[5] - factor[3] > 0.06
    assert factor[3] == pytest.approx(1, abs=0.02)


def test_two_sessions_that_differ_are_told_apart() -> None:
    """One half of the rows was timed in a session that took 5 percent longer."""
    specs = networks(80)
    slow = made_up(specs[:40], {}, session=1)
    fast = [
        Evidence(f"fast {one.key}", one.terms, one.ratio * 1.05, one.error)
        for one in made_up(specs[40:], {}, session=2)
    ]
    correction = learn([*slow, *fast])
    new = networks(10, seed=2)
    for spec in new:
        first, second = correction.predict(terms_of(spec, 1)).time, correction.predict(terms_of(spec, 2)).time
        assert second / first == pytest.approx(1.05, abs=0.02)


def test_addends_are_shares_of_the_reference_network() -> None:
    features = features_of(terms_of(published_spec("mobilenet_v3_large")))
    assert [features[kind, ""] for kind in ADDENDS] == pytest.approx([1.0] * 4, rel=0.01)


def test_weights_cost_time_of_their_own() -> None:
    spec = published_spec("mobilenet_v3_large")
    correction = learn(made_up([*networks(40), spec], {("weights", ""): 0.1}))
    heavy = terms_of(published_spec("mobilenet_v1"))
    assert correction.predict(heavy).time > raw(heavy)


def test_a_feature_that_no_network_speaks_of_changes_nothing() -> None:
    """Networks without a kernel of 7 correct a block with one by what it shares with others, and no more."""
    rng, stages = random.Random(0), tuple(dataclasses.replace(stage, kernels=(3, 5)) for stage in SPACE.stages)
    few = dataclasses.replace(SPACE, stages=stages)
    evidence = made_up([few.sample(rng) for _ in range(40)], {("common", ""): 0.1})
    correction, known = learn(evidence), features_of([term for one in evidence for term in one.terms])
    part = BlockPart(BlockSpec(kernel=7, expanded=144, out=40, activation="relu6"), 40, 6)
    term = Term(part, 0.03, 9)
    unknown = {("kernel", "7"), ("activation", "relu6"), ("session", "9"), ("row", part.key)}
    assert unknown <= features_of([term]).keys() - known.keys()
    with_kernel_3 = Term(BlockPart(BlockSpec(kernel=3, expanded=144, out=40, activation="relu6"), 40, 6), 0.03, 9)
    learned = correction.ratio(term) - 0.03
    assert learned > 0
    # What the two blocks do not share is the kernel, and the size with the kernel.
    assert learned < correction.ratio(with_kernel_3) - 0.03
    assert correction.ratio(Term(part, 0.03, 8)) == correction.ratio(term)  # a session that is unknown, too
    nothing = Correction([])
    assert nothing.ratio(term) == 0.03
    assert nothing.predict([term]).time == 0.03


def test_no_evidence_leaves_rows_as_they_are() -> None:
    correction = learn([])
    for spec in networks(3):
        terms = terms_of(spec)
        prediction = correction.predict(terms)
        assert prediction.time == raw(terms)
        assert [correction.ratio(term) for term in terms] == [term.ratio for term in terms]
        prior = sum((value * PRIOR[kind]) ** 2 for (kind, _), value in features_of(terms).items())
        assert prediction.std == pytest.approx(math.sqrt(prior + (correction.misfit * raw(terms)) ** 2))


def test_universal_and_fused_blocks_speak_of_themselves_only() -> None:
    """What they teach of their kernels is nothing that the rows of depthwise convolutions learn from."""

    def kernels(block: BlockSpec) -> set[str]:
        features = features_of([(BlockPart(block, 16, 14), 1.0, 0)])
        return {name for kind, name in features if kind == "kernel"}

    plain = BlockSpec(kernel=3, expanded=48, out=16)
    blocks = [plain, *(plain.replace(op=op) for op in ("fused",))]
    blocks += [plain.replace(op="uib", start_kernel=start, kernel=kernel) for start, kernel in ((3, 3), (3, 0), (0, 0))]
    assert [kernels(block) for block in blocks] == [{"3"}, {"fused 0 3"}, {"uib 3 3"}, {"uib 3 0"}, {"uib 0 0"}]
    amounts = [features_of([(BlockPart(block, 16, 14), 1.0, 0)])["activations", ""] for block in blocks]
    assert amounts[0] == amounts[2] == 2 * amounts[1] == 2 * amounts[3] == 2 * amounts[4]


def test_every_feature_has_a_prior() -> None:
    terms = [term for spec in (*networks(20), published_spec("mobilenet_v2")) for term in terms_of(spec)]
    kinds = {kind for kind, _ in features_of(terms)}
    assert kinds == set(PRIOR)


# Sums over blocks -------------------------------------------------------------------------------------


def test_sums_over_parts_are_the_predictions() -> None:
    coefficients: dict[Feature, float] = {("common", ""): 0.07, ("kernel", "5"): -0.05, ("weights", ""): 0.04}
    correction = learn(made_up(networks(30), coefficients))
    for spec in (*networks(10, seed=3), published_spec("mobilenet_v2")):  # whose features are unknown in part
        terms = terms_of(spec)
        total = sum(correction.ratio(term) for term in terms)
        assert correction.predict(terms).time == pytest.approx(total, rel=1e-9)
        assert total != pytest.approx(raw(terms), rel=1e-3)


# Deviations -------------------------------------------------------------------------------------------


def test_leaving_out_is_refitting_without() -> None:
    rng = random.Random(0)
    evidence = [
        Evidence(one.key, one.terms, one.ratio * rng.gauss(1.05, 0.02), rng.uniform(0.001, 0.02))
        for one in made_up(networks(12), {})
    ]
    correction = Correction(evidence)
    for number, one in enumerate(evidence):
        refitted = Correction([*evidence[:number], *evidence[number + 1 :]]).predict(one.terms)
        held_out = correction.held_out(number)
        assert held_out.time == pytest.approx(refitted.time, rel=1e-9)
        # The share that no feature explains is one of the measured time here, and of the predicted time there.
        misfit = correction.misfit
        unexplained = held_out.std**2 - (misfit * one.ratio) ** 2, refitted.std**2 - (misfit * refitted.time) ** 2
        assert unexplained[0] == pytest.approx(unexplained[1], rel=1e-6)


@pytest.mark.parametrize("share", [1.05, 0.4])
def test_rows_without_a_network_keep_their_least_time(share: float) -> None:
    evidence = [Evidence(one.key, one.terms, share * one.ratio, one.error) for one in made_up(networks(12), {})]
    correction = Correction(evidence)
    for number, one in enumerate(evidence):
        without = Correction([*evidence[:number], *evidence[number + 1 :]])
        total = sum(without.ratio(term) for term in one.terms)
        assert correction.rows_held_out(number) == pytest.approx(total, rel=1e-9)
        if share < LEAST:
            assert total > correction.held_out(number).time * 1.05
        else:
            assert total == pytest.approx(correction.held_out(number).time, rel=1e-9)


@pytest.mark.parametrize(("scatter", "least", "most"), [(0.0, 0.01, 0.01), (0.01, 0.01, 0.02), (0.06, 0.04, 0.08)])
def test_the_misfit_is_that_of_the_measurements(scatter: float, least: float, most: float) -> None:
    draws = np.random.default_rng(0)
    evidence = [
        Evidence(one.key, one.terms, one.ratio * float(np.exp(scatter * draws.normal())), one.error)
        for one in made_up(networks(60), {("common", ""): 0.1})
    ]
    assert least <= learn(evidence).misfit <= most


def test_deviations_shrink_with_evidence() -> None:
    terms, evidence = terms_of(networks(1, seed=4)[0]), made_up(networks(100), {})
    relative = [
        Correction(evidence[:number]).predict(terms).std / Correction(evidence[:number]).predict(terms).time
        for number in (0, 1, 5, 20, 100)
    ]
    assert relative == sorted(relative, reverse=True)
    assert relative[0] > 0.15
    assert MISFITS[0] < relative[-1] < 0.03


def test_a_network_that_was_measured_well_counts_for_more() -> None:
    spec = networks(1)[0]
    terms, stds, times = terms_of(spec), [], []
    for error in (0.001, 0.05, 0.2):
        (one,) = made_up([spec], {("common", ""): 0.1}, error=error)
        prediction = Correction([one]).predict(terms)
        stds.append(prediction.std)
        times.append(prediction.time / raw(terms))
    assert stds == sorted(stds)
    assert times == sorted(times, reverse=True)
    assert times[0] > 1.09
    assert times[-1] < 1.08


def test_deviations_are_calibrated() -> None:
    """Coefficients drawn from the prior, and errors of the stated size, give predictions as far off as they say."""
    scores = []
    for seed in range(60):
        draws = np.random.default_rng(seed)
        specs = networks(20, seed)
        terms = [terms_of(spec) for spec in specs]
        features = sorted({feature for one in terms for feature in features_of(one)})
        coefficients = {feature: draws.normal(0, PRIOR[feature[0]]) for feature in features}
        truth = [true_ratio(one, coefficients) * (1 + draws.normal(0, MISFITS[0])) for one in terms]
        evidence = [
            Evidence(str(number), one, time * (1 + draws.normal(0, ERROR)), ERROR)
            for number, (one, time) in enumerate(zip(terms[:15], truth, strict=False))
        ]
        correction = Correction(evidence)
        for one, time in zip(terms[15:], truth[15:], strict=True):
            prediction = correction.predict(one)
            scores.append((prediction.time - time) / prediction.std)
    assert float(np.mean(np.square(scores))) == pytest.approx(1, abs=0.25)
    assert float(np.mean(np.abs(scores) < 2)) == pytest.approx(0.954, abs=0.03)
    assert float(np.mean(scores)) == pytest.approx(0, abs=0.2)


# Contradictions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.5, 0.6])
def test_contradictions_are_found_listed_and_not_learned_from(factor: float) -> None:
    evidence = made_up(networks(12), {("common", ""): 0.05})
    wrong = Evidence("wrong", evidence[3].terms, evidence[3].ratio * factor, ERROR)
    correction = learn([*evidence[:3], wrong, *evidence[4:]])
    without = Correction([*evidence[:3], *evidence[4:]])
    assert correction.contradicting == ("wrong",)
    assert [one.key for one in correction.evidence] == [one.key for one in without.evidence]
    for one in evidence:
        assert correction.predict(one.terms) == without.predict(one.terms)


def test_the_worst_contradiction_is_left_out_first() -> None:
    """One that pulls the others off is gone before they are judged."""
    evidence = made_up(networks(12), {})
    worse = Evidence("worse", evidence[0].terms, evidence[0].ratio * 4, ERROR)
    bad = Evidence("bad", evidence[1].terms, evidence[1].ratio * 1.5, ERROR)
    assert learn([bad, worse, *evidence[2:]]).contradicting == ("worse", "bad")


def test_what_differs_by_less_is_learned_from() -> None:
    evidence = made_up(networks(12), {})
    off = Evidence("off", evidence[0].terms, evidence[0].ratio * (1 + 0.8 * CONTRADICTION), ERROR)
    correction = learn([off, *evidence[1:]])
    assert correction.contradicting == ()
    assert len(correction.evidence) == 12


def test_a_few_networks_contradict_nobody() -> None:
    """Nobody knows which of them is wrong."""
    evidence = made_up(networks(MIN_LEFT), {})
    off = Evidence("off", evidence[0].terms, evidence[0].ratio * 2, ERROR)
    assert learn([off, *evidence[1:]]).contradicting == ()
    assert learn([off, *evidence]).contradicting == ("off",)


def test_no_row_is_taken_for_nearly_free() -> None:
    """Whatever the networks say: a search would find networks of such rows."""
    evidence = []
    for number, spec in enumerate(networks(30)):
        terms = terms_of(spec)
        evidence.append(Evidence(str(number), terms, 0.3 * sum(term.ratio for term in terms), ERROR))
    correction = learn(evidence)
    shares = [correction.ratio(term) / term.ratio for one in evidence for term in one.terms]
    assert min(shares) == pytest.approx(LEAST)
