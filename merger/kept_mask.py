"""A random mask that is drawn once per block and kept, for whoever drops by it again.

Knows no tensor's values and no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from merger.blocks import Block
from merger.random_mask import Mask, RandomMask

ELEMENTS_OF_A_BYTE = 8


class KeptMask:
    """What one probability keeps of one tensor; drawing a block takes fifty times as long again."""

    __slots__ = ("_drawn", "_mask", "_packed", "_places", "_probability")

    def __init__(self, mask: RandomMask, probability: float, blocks: Sequence[Block]) -> None:
        """Draw nothing yet of a tensor with these blocks."""
        self._mask = mask
        self._probability = probability
        # One array for all: small ones, kept between larger ones that come and go, would leave
        # the heap in pieces.
        sizes = [-(-block.elements // ELEMENTS_OF_A_BYTE) for block in blocks]
        stops = np.cumsum([0, *sizes]).tolist()
        self._places = {
            block.start: slice(*pair) for block, pair in zip(blocks, pairwise(stops), strict=True)
        }
        self._packed = np.empty(stops[-1], np.uint8)
        self._drawn: set[int] = set()

    def kept(self, block: Block) -> Mask:
        """Return which elements of a block are kept, (n,)."""
        place = self._places[block.start]
        if block.start in self._drawn:
            return np.unpackbits(self._packed[place], count=block.elements).view(np.bool_)
        kept = self._mask.kept(self._probability, block.start, block.stop)
        self._packed[place] = np.packbits(kept)
        self._drawn.add(block.start)
        return kept
