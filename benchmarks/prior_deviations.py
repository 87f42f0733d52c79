"""Learn the deviations of the ImageNet prior from the evidence, and judge them by families that did not teach them.

    python benchmarks/prior_deviations.py

takes one to two minutes on one core. Nine factors multiply the deviations that were chosen by hand, each those of one
sort. They maximise either the density of left-out families or the marginal likelihood of all rows, times a log-normal
prior around the chosen deviations: where the evidence tells nothing, these stay. A family is then judged by a fit
without it, whose deviations were learnt without it too. Pairs and ablations are judged by deviations that were learnt
without any network of a pair and without all ablations. Prints the figures and writes them to
benchmarks/results/prior_deviations.json.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from prior_fidelity import (
    ABLATIONS,
    around_their_level,
    family_groups,
    family_of,
    group_of,
    leave_out,
    means_of_families,
    pair_figures,
    summary,
    twins,
)
from scipy.optimize import minimize

from nas.accuracy import fit_imagenet_prior as fitting
from nas.accuracy.evidence import Evidence, evidence, pairs
from nas.files import write_text

RESULTS = Path(__file__).parent / "results" / "prior_deviations.json"

# The sorts of deviations: those of coefficients, by keys of `PRIORS`, and those of rows, by constants.
COEFFICIENTS = {
    "se": ("se",),
    "hswish": ("hswish",),
    "kernels": ("kernel5", "kernel7"),
    "width": ("width",),
    "expansion": ("expansion",),
    "levels": ("recipe",),
}
ROWS = {"networks": "NETWORK_STD", "trainings": "TRAINING_STD", "once_for_all": "ONCE_FOR_ALL_STD"}
DOUBT = math.log(2)  # one standard deviation of a factor's logarithm: a factor of two
STEP = 1e-3  # of the numeric derivatives by a factor's logarithm
ROUNDS = 15  # of the optimiser, at most
DEVIATIONS = ("std", "std_of_kind", "std_of_stage")

Objective = Callable[[fitting.Regression, np.ndarray], float]


class Parts(NamedTuple):
    """The covariances of coefficients and of rows as sums, in which a sort's factor counts squared."""

    chosen: tuple[np.ndarray, np.ndarray]
    by_sort: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, rows: Sequence[Evidence], names: Sequence[str]) -> Parts:
        """Return the parts of a regression's covariances: what is added where the variances of one sort are doubled."""

        def covariances() -> tuple[np.ndarray, np.ndarray]:
            return fitting.prior_covariance(names), fitting.noise_covariance(rows)

        chosen = covariances()
        doubled = []
        for kinds in COEFFICIENTS.values():
            wider = {
                kind: fitting.PRIORS[kind]._replace(
                    **{name: math.sqrt(2) * getattr(fitting.PRIORS[kind], name) for name in DEVIATIONS}
                )
                for kind in kinds
            }
            with patch.dict(fitting.PRIORS, wider):
                doubled.append(covariances())
        for constant in ROWS.values():
            with patch.object(fitting, constant, math.sqrt(2) * getattr(fitting, constant)):
                doubled.append(covariances())
        return cls(chosen, [(one - chosen[0], other - chosen[1]) for one, other in doubled])

    def regression(self, chosen: fitting.Regression, factors: np.ndarray) -> fitting.Regression:
        """Return a regression with the chosen deviations times factors, shape (sorts,)."""
        covariance, noise = (
            whole + sum((factor**2 - 1) * part[which] for factor, part in zip(factors, self.by_sort, strict=True))
            for which, whole in enumerate(self.chosen)
        )
        return chosen.with_deviations(covariance, noise)


def density_of(groups: dict[str, list[np.ndarray]]) -> Objective:
    """Return the log density of those families that are kept, each given all other kept rows."""

    def density(regression: fitting.Regression, kept: np.ndarray) -> float:
        families = [[rows[kept[rows]] for rows in family if kept[rows].any()] for family in groups.values()]
        return regression.held_out_density([family for family in families if family], kept)

    return density


def learn(regression: fitting.Regression, parts: Parts, objective: Objective, kept: np.ndarray) -> np.ndarray:
    """Return the factors, shape (sorts,), by the kept rows (bool, shape (rows,))."""

    def loss(logarithms: np.ndarray) -> float:
        found = objective(parts.regression(regression, np.exp(logarithms)), kept)
        return float((logarithms**2).sum() / DOUBT**2 / 2 - found)

    start = np.zeros(len(parts.by_sort))
    bounds = [(-3.0, 3.0)] * len(start)
    options = {"ftol": 3e-6, "eps": STEP, "maxiter": ROUNDS}
    return np.exp(minimize(loss, start, method="L-BFGS-B", bounds=bounds, options=options).x)


def judged(
    rows: Sequence[Evidence], groups: dict[str, list[np.ndarray]], regressions: dict[str, fitting.Regression]
) -> dict[str, Any]:
    """Return the errors of families left out, each by its regression, around their level."""
    families = np.array([family_of(one) for one in rows])
    levels = np.array([one.level for one in rows])
    around, calibration = around_their_level(regressions, families, levels, np.array([o.result.top1 for o in rows]))
    counts = np.array([one["rows"] for one in around.values()])
    rmse = np.array([one["rmse"] for one in around.values()])
    density = sum(regressions[family].held_out_density([group]) for family, group in groups.items())
    return {
        "log_density": round(density, 1),
        "rmse_of_all_rows": round(float(np.sqrt(counts @ rmse**2 / counts.sum())), 3),
        **means_of_families(around),
        "rmse_of_fbnet": around["FBNet, fbnet"]["rmse"],
        "rmse_of_mobilenet_v3_small": around["MobileNetV3-Small, mobilenet-v3"]["rmse"],
        "calibration": calibration,
    }


def choices_judged(
    rows: Sequence[Evidence], regression: fitting.Regression, training_std: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the errors of left-out ablations of SE and h-swish, and the signs of published pairs."""
    ablations = np.array([group_of(one) == ABLATIONS for one in rows])
    left_out = [group for group in twins(rows) if ablations[group].any()]
    estimate, _, sigmas = leave_out(regression, left_out)
    top1 = np.array([one.result.top1 for one in rows])
    figures = pair_figures(rows, regression, training_std)
    return summary((estimate - top1)[ablations], sigmas[ablations]), {
        key: figures[key] for key in ("fitted", "left_out")
    }


def main() -> None:
    start = time.perf_counter()
    rows = evidence()
    regression = fitting.Regression(rows, fitting.load_samples())
    parts = Parts.of(rows, regression.names)
    groups = family_groups(rows)
    families = np.array([family_of(one) for one in rows])
    everything = np.ones(len(rows), bool)
    ends = {rows.index(end) for pair in pairs() for end in (pair.without, pair.with_it)}
    no_choices = np.array([row not in ends and group_of(one) != ABLATIONS for row, one in enumerate(rows)])
    sorts = (*COEFFICIENTS, *ROWS)

    def figures_of(factors: dict[str, np.ndarray], for_choices: np.ndarray) -> dict[str, Any]:
        found = judged(rows, groups, {family: parts.regression(regression, one) for family, one in factors.items()})
        training_std = fitting.TRAINING_STD * for_choices[sorts.index("trainings")]
        ablations, of_pairs = choices_judged(rows, parts.regression(regression, for_choices), training_std)
        return found | {"ablations": ablations, "pairs": of_pairs}

    as_chosen = np.ones(len(sorts))
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rows": len(rows),
        "chosen_in_sight_of_all": figures_of(dict.fromkeys(groups, as_chosen), as_chosen),
    }
    objectives: dict[str, Objective] = {
        "density_of_left_out_families": density_of(groups),
        "marginal_likelihood": fitting.Regression.log_likelihood,
    }
    for name, objective in objectives.items():
        of_all = learn(regression, parts, objective, everything)
        factors = {family: learn(regression, parts, objective, families != family) for family in groups}
        of_others = learn(regression, parts, objective, no_choices)
        report[f"learnt_by_{name}"] = {
            "factors": dict(zip(sorts, of_all.round(2).tolist(), strict=True)),
            "factors_without_pairs_and_ablations": dict(zip(sorts, of_others.round(2).tolist(), strict=True)),
            "seen": figures_of(dict.fromkeys(groups, of_all), of_all),
            "unseen": figures_of(factors, of_others),
        }
    report["seconds"] = round(time.perf_counter() - start, 1)
    text = json.dumps(report, indent=1)
    write_text(RESULTS, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
