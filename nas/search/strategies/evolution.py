"""Evolution: the regularised one, and that of Once-for-All."""

from __future__ import annotations

import random

from nas.arch.encoding import Encoding
from nas.arch.skeleton import Decision
from nas.search.history import History
from nas.search.problem import Problem
from nas.search.strategies.base import Propose, Strategy


def regularised(problem: Problem) -> Propose:
    """Mutate the winner of a tournament among the youngest (arXiv 1802.01548, algorithm 1)."""
    population, tournament, rate = 100, 25, 0.05

    def propose(history: History, rng: random.Random) -> Encoding:
        if len(history) < population:
            return problem.sampler.sample(rng)
        drawn = rng.sample(range(len(history) - population, len(history)), tournament)
        winner = max(drawn, key=lambda index: history.scores[index])
        return problem.sampler.mutate(tuple(map(int, history.encodings[winner])), rng, rate)

    return propose


def once_for_all(problem: Problem) -> Propose:
    """Search as Once-for-All does (arXiv 1908.09791; `EvolutionFinder` of its code, with its settings).

    The best quarter of a population lives on. Half of its children are mutated, each decision with probability 0.1.
    The other half are crossed, each decision from one of two parents. So the parents are the best of all before.
    """
    population, parents, rate = 100, 25, 0.1

    def propose(history: History, rng: random.Random) -> Encoding:
        generation = len(history) // population  # parents are of generations that are finished
        child = len(history.seen) % population
        if generation == 0:
            return problem.sampler.sample(rng)
        best = history.best(parents, among=generation * population)
        if child < population // 2:
            return problem.sampler.mutate(rng.choice(best), rng, rate)
        return problem.sampler.repair(crossed(problem, rng.choice(best), rng.choice(best), rng), rng)

    return propose


def crossed(problem: Problem, one: Encoding, other: Encoding, rng: random.Random) -> Encoding:
    """Return a network with each decision from one of two parents; from the one that has it, where one lacks it."""
    columns = {decision.name: column for column, decision in enumerate(problem.space.decisions)}

    def choose(decision: Decision) -> int:
        column = columns[decision.name]
        choices = [parent[column] for parent in (one, other) if parent[column] >= 0]
        return rng.choice(choices) if choices else rng.randrange(len(decision.choices))

    return problem.space.build_encoding(choose)


EVOLUTION = Strategy(regularised, trials=500)
ONCE_FOR_ALL = Strategy(once_for_all, trials=500)
