"""NSGA-II (Deb et al. 2002, IEEE Transactions on Evolutionary Computation 6, 182) on score and latency."""

from __future__ import annotations

import random

import numpy as np

from nas.arch.encoding import Encoding
from nas.arch.skeleton import Decision
from nas.search.history import History
from nas.search.problem import Problem
from nas.search.strategies.base import Propose, Strategy

POPULATION = 50
CROSSOVER_RATE, SWAP_RATE = 0.9, 0.5  # of children, and of the decisions of one that is crossed


def nsga2(problem: Problem) -> Propose:
    """Breed each generation from the best of all before it, by rank and crowding of score and latency."""
    columns = {decision.name: column for column, decision in enumerate(problem.space.decisions)}
    mutation_rate = 1 / len(columns)
    parents_of: dict[int, list[int]] = {}  # indices of trials, by generation

    def propose(history: History, rng: random.Random) -> Encoding:
        generation = len(history) // POPULATION
        if generation == 0:
            return problem.sampler.sample(rng)
        if generation not in parents_of:  # what is no parent is never looked at again
            parents_of[generation] = _parents(history, generation, parents_of.pop(generation - 1, None))
        parents = parents_of[generation]
        # Binary tournaments: of two parents the one that comes first in the elite.
        one, other = (
            history.encodings[parents[min(rng.randrange(len(parents)), rng.randrange(len(parents)))]] for _ in range(2)
        )
        crossing = rng.random() < CROSSOVER_RATE

        def choose(decision: Decision) -> int:
            column = columns[decision.name]
            choice = int((other if crossing and rng.random() < SWAP_RATE else one)[column])
            if choice < 0 or rng.random() < mutation_rate:
                return rng.randrange(len(decision.choices))
            return choice

        return problem.space.build_encoding(choose)

    return propose


def _parents(history: History, generation: int, before: list[int] | None) -> list[int]:
    """Return the elite among the parents before and their children (section III-C of the paper)."""
    children = list(range((generation - 1) * POPULATION, generation * POPULATION))
    if generation > 1 and before is None:  # a search that resumes: the parents before are chosen again
        before = _parents(history, generation - 1, None)
    return elite(history.scores, history.latencies, [*(before or []), *children], POPULATION)


def elite(scores: np.ndarray, latencies: np.ndarray, members: list[int], number: int) -> list[int]:
    """Return the best `number` of the members: fronts in their order, within a front those with the most room first."""
    chosen: list[int] = []
    left = np.array(members)
    while len(chosen) < number and len(left):
        no_worse = (scores[left, None] >= scores[left]) & (latencies[left, None] <= latencies[left])
        better = (scores[left, None] > scores[left]) | (latencies[left, None] < latencies[left])
        on_front = ~(no_worse & better).any(axis=0)
        front = left[on_front]
        chosen += front[np.argsort(-crowding(scores[front], latencies[front]), kind="stable")].tolist()
        left = left[~on_front]
    return chosen[:number]


def crowding(scores: np.ndarray, latencies: np.ndarray) -> np.ndarray:
    """Return the crowding distance of the members of one front, shape (n,); infinite at its ends (section III-B)."""
    room = np.zeros(len(scores))
    for values in (scores, latencies):
        order = np.argsort(values, kind="stable")
        spread = values[order[-1]] - values[order[0]]
        room[order[[0, -1]]] = np.inf
        if spread > 0:
            room[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / spread
    return room


NSGA2 = Strategy(nsga2, trials=500)
