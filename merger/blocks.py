"""How a tensor is cut into blocks of whole rows. Knows no numbers and no files.

All arithmetic runs block by block, and every product, norm and dot product of a block is added to
the others in the order of the blocks. The cut depends on the shape alone, so the bits of a result
depend neither on the number of threads nor on which thread took which block.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

BLOCK_ELEMENTS = 1 << 17
"""Elements of a block: 512 KiB in float32, small enough for caches, large against call overhead.

Changing it may change bits of products and sums: raise `numerics` with it.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows `first` to `last` (exclusive) of a tensor seen as a matrix with `columns` columns."""

    first: int
    last: int
    columns: int

    @property
    def start(self) -> int:
        """Flat index of the first element."""
        return self.first * self.columns

    @property
    def stop(self) -> int:
        """Flat index behind the last element."""
        return self.last * self.columns

    @property
    def elements(self) -> int:
        """Number of elements."""
        return (self.last - self.first) * self.columns


def split(shape: tuple[int, ...]) -> tuple[Block, ...]:
    """Return the blocks of a tensor in order; none if it has no elements.

    A matrix is cut between rows; a vector has rows of one element; more dimensions than two are
    seen as (first dimension, all others).
    """
    rows = shape[0] if shape else 1
    columns = prod(shape[1:])
    if rows * columns == 0:
        return ()
    step = max(1, BLOCK_ELEMENTS // columns)
    return tuple(Block(first, min(first + step, rows), columns) for first in range(0, rows, step))
