"""Sample and mutate encodings that keep all limits."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from nas.arch.encoding import Encoding
from nas.search.canonical import CanonicalForm
from nas.search.limits import Limit
from nas.search.repair import Repair
from nas.search.solver import Solution

_TRIES = 200  # at a network that is not seen yet


class EncodingSampler:
    """A source of encodings that keep all limits, each in its canonical form."""

    def __init__(
        self, limits: Sequence[Limit], feasible_variants: Sequence[int], fastest: Sequence[Solution | None]
    ) -> None:
        self._space = limits[0].sums.space
        self._canonical = CanonicalForm(self._space)
        self._repair = Repair(limits, feasible_variants, [found and found.encoding for found in fastest])

    def repair(self, encoding: Encoding, rng: random.Random) -> Encoding:
        """Return the encoding if it keeps all limits, else one near it that does."""
        return self._canonical(self._repair(encoding, rng))

    def sample(self, rng: random.Random) -> Encoding:
        """Return an encoding that is uniform over each choice, then repaired."""
        return self.repair(self._space.build_encoding(lambda decision: rng.randrange(len(decision.choices))), rng)

    def mutate(self, encoding: Encoding, rng: random.Random, rate: float) -> Encoding:
        """Return the encoding with each decision made anew with probability `rate`, then repaired."""
        return self.repair(self._space.mutate_encoding(encoding, rng, rate), rng)

    def unseen(self, encoding: Encoding, seen: Collection[Encoding], rng: random.Random) -> Encoding:
        """Return the encoding, or one near it that is not in `seen`; itself if 200 mutations find no such one."""
        candidate = encoding
        for attempt in range(_TRIES):
            if candidate not in seen:
                return candidate
            candidate = self.mutate(candidate, rng, rate=min(1.0, 0.1 + attempt / 50))
        return encoding
