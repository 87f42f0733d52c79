"""Say what learned effects mean for the networks of a space, and for networks close to it: a sum over blocks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.skeleton import BLOCK_DECISIONS, Slot
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec, PlacedBlock
from nas.replacement.choices import LEFT_OUT, Change, slots_of
from nas.replacement.effects import Effect

# A large rise overstates what a network loses that is trained with the other choice from the beginning, most of all
# where a block is left out, for nothing was trained to make up for it. Both numbers were chosen on NAS-Bench-Macro,
# where `benchmarks/own_data.py` shows how the estimate ranks.
POWER, LEFT_OUT_SHARE = 0.7, 0.7


def penalty(change: Change, effect: Effect) -> float:
    """Return the part of a change in a network's penalty: a power of the rise (nats), 0 where there is none."""
    rise = max(effect.rise, 0.0)
    return float(rise**POWER) * (LEFT_OUT_SHARE if change.decision == LEFT_OUT else 1.0)


class SpaceEffects:
    """The penalty of any network: the sum of the penalties of its differences from the teacher.

    Those of one block's decisions are added, too. They were measured at one width, and count for all. A block
    that the teacher does not have counts nothing.
    """

    def __init__(self, space: SearchSpace, effects: Mapping[Change, Effect]) -> None:
        self._space = space
        self._penalties = {change: penalty(change, effect) for change, effect in effects.items()}

    def additive_model(self, space: SearchSpace) -> AdditiveModel:
        """Return the penalty of the encodings of a space with the same slots, at any of its variants."""
        left_out = {slot: self._left_out(slot) for slot in space.slots}
        options = []
        for slot in space.slots:
            choices = space.stages[slot.stage].block_choices
            penalties = np.array([self._of_option(slot, option) for option in itertools.product(*choices)])
            options.append(np.tile(penalties - left_out[slot], (len(space.variants), 1)))
        return AdditiveModel(space, np.full(len(space.variants), sum(left_out.values())), options)

    def penalty(self, spec: ArchSpec) -> float | None:
        """Return the penalty of a network, or None for one whose blocks do not fit the slots of the space.

        Its channels may lie between the choices, as those of trimmed networks do. There the penalty of the expansion is
        interpolated.
        """
        slots = slots_of(self._space, spec)
        if slots is None:
            return None
        present = dict(zip(slots, list(spec.walk())[1:], strict=True))
        return sum(
            self._of_block(slot, present[slot]) if slot in present else self._left_out(slot)
            for slot in self._space.slots
        )

    def _of_option(self, slot: Slot, option: Sequence[object]) -> float:
        return sum(
            self._penalties.get(Change(slot, decision, value), 0.0)
            for decision, value in zip(BLOCK_DECISIONS, option, strict=True)
        )

    def _left_out(self, slot: Slot) -> float:
        return self._penalties.get(Change(slot, LEFT_OUT, None), 0.0)

    def _of_block(self, slot: Slot, placed: PlacedBlock) -> float:
        """Return the penalty of a block of any kernel, expansion and activation."""
        block, stage = placed.block, self._space.stages[slot.stage]
        kernel = min(stage.kernels, key=lambda known: abs(known - block.kernel))
        choices = sorted(stage.expansions)
        known = [self._penalties.get(Change(slot, "expansion", choice), 0.0) for choice in choices]
        expansion = float(np.interp(block.expanded / placed.in_channels, choices, known))
        activation = block.activation if block.activation in stage.activations else stage.activations[0]
        others = (("kernel", kernel), ("se", block.se > 0), ("activation", activation))
        return expansion + sum(self._penalties.get(Change(slot, *own), 0.0) for own in others)
