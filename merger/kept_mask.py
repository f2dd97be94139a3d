"""A random mask that is computed once per block and kept, for whoever drops by it again.

Knows no tensor's values and no method.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from merger.random_mask import Mask, RandomMask

ELEMENTS_OF_A_BYTE = 8


class KeptMask:
    """What one probability keeps of one tensor; drawing a block takes fifty times as long again."""

    __slots__ = ("_mask", "_packed", "_probability")

    def __init__(self, mask: RandomMask, probability: float) -> None:
        """Draw nothing yet."""
        self._mask = mask
        self._probability = probability
        self._packed: dict[tuple[int, int], npt.NDArray[np.uint8]] = {}

    def kept(self, start: int, stop: int) -> Mask:
        """Return which of the elements from `start` to `stop` (exclusive) are kept, (n,)."""
        packed = self._packed.get((start, stop))
        if packed is None:
            packed = np.packbits(self._mask.kept(self._probability, start, stop))
            self._packed[start, stop] = packed
        return np.unpackbits(packed, count=stop - start).view(np.bool_)
