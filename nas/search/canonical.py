"""Give every network of a space one encoding, where several describe the same network."""

from __future__ import annotations

import numpy as np

from nas.arch.encoding import Encoding
from nas.arch.space import SearchSpace


class CanonicalForm:
    """A function from encodings to the encoding that `space.encode` gives for the same network."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._ambiguous = _ambiguous_variants(space)

    def __call__(self, encoding: Encoding) -> Encoding:
        if encoding[0] not in self._ambiguous:
            return encoding
        (canonical,) = self._space.encode(self._space.decode([np.array(encoding)]))
        return tuple(int(choice) for choice in canonical)


def _ambiguous_variants(space: SearchSpace) -> set[int]:
    """Return the variants in which two encodings can describe the same network.

    There two stages of equal channels without a stride between them form one run of blocks, or another width gives
    the same channels everywhere.
    """
    shapes = [
        (variant.resolution, *(space.stage_out(stage, variant.width) for stage in range(-1, len(space.stages))))
        for variant in space.variants
    ]
    return {
        variant
        for variant, (_, _, *outs) in enumerate(shapes)
        if shapes.count(shapes[variant]) > 1
        or any(
            stage.stride == 1 and outs[index - 1] == outs[index]
            for index, stage in enumerate(space.stages)
            if index > 0
        )
    }
