"""NetAdapt as MobileNetV3 uses it (arXiv 1804.03230; 1905.02244, section 4.2), on predicted latencies.

Each step makes proposals (`nas.netadapt.proposals`), every one of which saves at least a given share of the seed's
latency. It keeps the one with the best accuracy change per saved millisecond, until the network is fast enough. Before
the first cut, expansions that are faster at the next wider multiple of 16 channels are widened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.arch.spec import ArchSpec
from nas.netadapt.proposals import PAPER_RULES, Predict, Rules, make_proposals, wider_and_faster

HALVINGS = 4  # times that the required saving is halved where no cut saves so much


@dataclass(frozen=True, slots=True)
class NetAdaptStep:
    """A network that NetAdapt kept, and the cut that led to it."""

    spec: ArchSpec
    predicted_ms: float
    top1: float  # estimated, percent
    cut: str = ""  # "" for the seed
    measured_ms: float | None = None  # of the whole network; None where it was not measured


def trim_until_measured(
    steps: Sequence[NetAdaptStep],
    limit_ms: float,
    *,
    predict_ms: Predict,
    estimate: Predict,
    measure_ms: Callable[[ArchSpec], float] | None = None,
    measure_every: int | None = None,
    rules: Rules = PAPER_RULES,
) -> Iterator[NetAdaptStep]:
    """Trim until a measurement of the whole network keeps the limit; yield each new step.

    `steps` are those so far, the seed's first. Each network that is predicted to keep the limit is measured, and so
    is every `measure_every`-th step. Predictions are corrected by the ratio of measured to predicted latency of the
    network that was measured last. Without `measure_ms` the predictions must keep the limit.
    Ends early, with `latency_of` above the limit, where no proposal saves anything more.
    """
    steps = list(steps)
    while latency_of(steps := as_learned(steps, predict_ms)) > limit_ms:
        step = next_step(steps, limit_ms / correction_of(steps), predict_ms=predict_ms, estimate=estimate, rules=rules)
        if step is None:
            return
        due = measure_every is not None and len(steps) % measure_every == 0
        if measure_ms and (due or latency_of([*steps, step]) <= limit_ms):
            step = replace(step, measured_ms=measure_ms(step.spec))
        steps.append(step)
        yield step


def as_learned(steps: Sequence[NetAdaptStep], predict_ms: Predict) -> list[NetAdaptStep]:
    """Return the steps with today's predictions for the seed and for the step that was measured last.

    A latency table learns from a measurement, and the predictions for all that follows change with it: also that for
    the seed, a share of which each step saves.
    """
    measured = [index for index, step in enumerate(steps) if step.measured_ms is not None]
    renewed = {0, measured[-1]} if measured else set()
    return [
        replace(step, predicted_ms=float(predict_ms([step.spec])[0])) if index in renewed else step
        for index, step in enumerate(steps)
    ]


def correction_of(steps: Sequence[NetAdaptStep]) -> float:
    """Return measured over predicted latency of the step that was measured last, or 1 if none was."""
    measured = (step.measured_ms / step.predicted_ms for step in reversed(steps) if step.measured_ms is not None)
    return next(measured, 1.0)


def latency_of(steps: Sequence[NetAdaptStep]) -> float:
    """Return the latency (ms) of the last step: as measured, or as predicted and corrected."""
    last = steps[-1]
    return last.predicted_ms * correction_of(steps) if last.measured_ms is None else last.measured_ms


def first_step(
    seed: ArchSpec, predict_ms: Predict, estimate: Predict, measured_ms: float | None = None
) -> NetAdaptStep:
    """Return the step that a run of NetAdapt begins with: the seed itself, with its latency if it was measured."""
    return NetAdaptStep(seed, float(predict_ms([seed])[0]), float(estimate([seed])[0]), measured_ms=measured_ms)


def next_step(
    steps: Sequence[NetAdaptStep],
    limit_ms: float,
    *,
    predict_ms: Predict,
    estimate: Predict,
    rules: Rules = PAPER_RULES,
) -> NetAdaptStep | None:
    """Return the step after `steps`, whose last is predicted above the limit; None if nothing saves anything more."""
    last = steps[-1]
    if len(steps) == 1:
        wider = wider_and_faster(last.spec, predict_ms)
        if wider is not None:
            return NetAdaptStep(wider.spec, wider.predicted_ms, float(estimate([wider.spec])[0]), wider.cut)
    # The last step need not save more than what is missing.
    least_ms = min(rules.step_share * steps[0].predicted_ms, last.predicted_ms - limit_ms)
    asked = (least_ms / 2**halvings for halvings in range(1 + HALVINGS))
    found = next(filter(None, (make_proposals(last.spec, ms, predict_ms, rules) for ms in asked)), [])
    if not found:
        return None
    # The last network is estimated along with its proposals: its own accuracy may have been evaluated on images.
    accuracy = np.asarray(estimate([last.spec, *(proposal.spec for proposal in found)]))
    gained = accuracy[1:] - accuracy[0]
    saved_ms = last.predicted_ms - np.array([proposal.predicted_ms for proposal in found])
    best = int(np.argmax(gained)) if rules.metric == "accuracy" else best_proposal(gained, saved_ms)
    cut, spec, predicted_ms = found[best]
    return NetAdaptStep(spec, predicted_ms, float(accuracy[1 + best]), cut)


def best_proposal(gained: np.ndarray, saved_ms: np.ndarray) -> int:
    """Return the index of the best accuracy change per saved millisecond (1905.02244, section 4.2).

    Of proposals that lose nothing the one that saves most is best. The ratio alone would prefer the smallest saving
    among them.
    """
    free = gained >= 0
    if free.any():
        return int(np.argmax(np.where(free, saved_ms, -np.inf)))
    return int(np.argmax(gained / saved_ms))
