"""Search with Optuna within a hard limit: an additive surrogate and an integer program propose each trial.

    python examples/optuna_sampler.py             # 40 trials of 15,625 networks; seconds

It prints the best value and its cost. Replace `objective` by a training, and the costs by yours.
"""

from __future__ import annotations

import math

import optuna
from optuna.distributions import CategoricalDistribution

import nas

CHOICES = {f"layer{i}": CategoricalDistribution(["skip", "k3", "k5", "k7", "k9"]) for i in range(6)}
COST = {"skip": 0.0, "k3": 1.0, "k5": 1.6, "k7": 2.4, "k9": 3.4}  # milliseconds of a layer


def objective(trial: optuna.Trial) -> float:
    """Return a made-up accuracy (percent): kernels count more in later layers, the larger the less."""
    layers = [trial.suggest_categorical(name, distribution.choices) for name, distribution in CHOICES.items()]
    return 60 + sum(i * math.sqrt(COST[layer]) for i, layer in enumerate(layers, start=1))


def main() -> None:
    limit = nas.LinearLimit(dict.fromkeys(CHOICES, COST), most=8.0, name="milliseconds")
    sampler = nas.AdditiveSampler(CHOICES, limits=[limit], start=dict.fromkeys(CHOICES, COST), seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=40)
    cost = sum(COST[layer] for layer in study.best_params.values())
    print(f"best of {len(study.trials)}: {study.best_value:.2f} % at {cost:.1f} of {limit.most:.1f} ms")
    print(study.best_params)


if __name__ == "__main__":
    main()
