"""Search spaces: the networks around a skeleton, and their encodings."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.arch.encoding import Encoding, decode_network, encode_network
from nas.arch.skeleton import BLOCK_DECISIONS, Decision, Skeleton, Variant
from nas.arch.spec import ArchSpec
from nas.errors import NasError


@dataclass(frozen=True, kw_only=True)
class SearchSpace(Skeleton):
    """A skeleton with the networks that can be built around it."""

    def at(self, variants: Sequence[tuple[float, int]]) -> SearchSpace:
        """Return the same space with these variants only. Raises NasError for a variant that it does not have."""
        for width, resolution in variants:
            if width not in self.widths:
                raise NasError(f"space {self.name} has no width {width:g}; it has {_listed(self.widths)}")
            if resolution not in self.resolutions:
                raise NasError(f"space {self.name} has no resolution {resolution}; it has {_listed(self.resolutions)}")
        if not variants:
            raise NasError(f"space {self.name} needs at least one pair of width and resolution")
        return dataclasses.replace(self, variants=tuple(dict.fromkeys(itertools.starmap(Variant, variants))))

    @property
    def size(self) -> int:
        """Return the number of encodings. It exceeds that of networks where two encodings describe one."""
        stages = (
            sum(math.prod(map(len, stage.block_choices)) ** depth for depth in stage.depths) for stage in self.stages
        )
        return len(self.variants) * math.prod(stages)

    # Sampling -----------------------------------------------------------------------------------------

    def build_encoding(self, choose: Callable[[Decision], int]) -> Encoding:
        """Return the encoding whose choices are `choose(decision)`, the index of a choice.

        Decisions are asked in the order of `decisions`. Those of absent blocks are not asked.
        """
        encoding = [-1] * len(self.decisions)
        encoding[0] = int(choose(self.decisions[0]))
        for s, stage in enumerate(self.stages):
            column = self.depth_column(s)
            encoding[column] = int(choose(self.decisions[column]))
            columns = len(BLOCK_DECISIONS) * stage.depths[encoding[column]]
            for block_column in range(column + 1, column + 1 + columns):
                encoding[block_column] = int(choose(self.decisions[block_column]))
        return tuple(encoding)

    def mutate_encoding(self, encoding: Sequence[int] | np.ndarray, rng: random.Random, rate: float) -> Encoding:
        """Return `encoding` with each decision chosen anew with probability `rate`.

        A decision that did not exist before is chosen uniformly.
        """

        def choose(decision: Decision) -> int:
            kept = int(encoding[self._columns[decision.name]])
            if kept >= 0 and rng.random() >= rate:
                return kept
            return rng.randrange(len(decision.choices))

        return self.build_encoding(choose)

    def sample(self, rng: random.Random) -> ArchSpec:
        """Return a random network, uniform over the choices of each decision."""
        return decode_network(self, self.build_encoding(lambda decision: rng.randrange(len(decision.choices))))

    def smallest(self, variant: tuple[float, int]) -> ArchSpec:
        """Return the network with the first choice of every decision. Raises NasError for an unknown variant."""
        space = self.at([variant])
        return decode_network(space, space.build_encoding(lambda decision: 0))

    def largest(self, variant: tuple[float, int]) -> ArchSpec:
        """Return the network with the last choice of every decision. Raises NasError for an unknown variant."""
        space = self.at([variant])
        return decode_network(space, space.build_encoding(lambda decision: len(decision.choices) - 1))

    # Encodings ----------------------------------------------------------------------------------------

    def decode(self, encodings: np.ndarray | Sequence[Sequence[int] | np.ndarray]) -> list[ArchSpec]:
        """Return the networks of n encodings, an integer array of shape (n, decisions) or a sequence of rows."""
        return [decode_network(self, [int(index) for index in encoding]) for encoding in encodings]

    def encode(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Return the encodings of n networks, an int16 array of shape (n, decisions).

        Two encodings can describe one network where stages come to have equal channels. The one with the shallower
        early stages is returned. Raises NasError for a network that is not of this space.
        """
        encodings = np.empty((len(specs), len(self.decisions)), np.int16)
        for row, spec in enumerate(specs):
            encoding = encode_network(self, spec)
            if encoding is None:
                raise NasError(f"{spec.name} ({spec.id}) is not a network of the space {self.name}")
            encodings[row] = encoding
        return encodings

    def contains(self, spec: ArchSpec) -> bool:
        """Return whether a network is of this space, whatever it is called."""
        return encode_network(self, spec) is not None


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
