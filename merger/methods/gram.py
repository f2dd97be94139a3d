"""Gram matrices of one tensor's operands: dot products block by block, in float64.

A group is what one angle is taken of: the whole tensor, each row, or each column. A tensor that is
no matrix is one group however it is asked. Knows no method and no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from merger.blocks import Block
from merger.task_vector import Delta

Array = npt.NDArray[np.float64]


def granularity_at(granularity: str, shape: Sequence[int]) -> str:
    """Return how a tensor of this shape is grouped: rows and columns need a matrix.

    More than two dimensions are seen as (first, all others), as the blocks see them: a row of a
    convolution is one filter.
    """
    return granularity if len(shape) >= 2 else "tensor"


def gram_matrices(
    deltas: Sequence[Delta | None], blocks: Sequence[Block], granularity: str
) -> Iterator[Array]:
    """Yield the Gram matrices of K operands, (K, K, G): for `row` block by block, else all at once.

    None stands for an operand that is zero. The values of a block become float64 before they are
    multiplied, so a product of float32 is exact; sums of blocks are added in their order. The
    relative error of an entry against ‖a‖‖b‖ is about 1e-15.
    """
    total: Array | None = None
    for block in blocks:
        values = [None if delta is None else delta.block(block).double() for delta in deltas]
        products = _of_block(values, block, granularity)
        if granularity == "row":
            yield products
        else:
            total = products if total is None else total + products
    if total is not None:
        yield total


def _of_block(values: Sequence[torch.Tensor | None], block: Block, granularity: str) -> Array:
    count = len(values)
    groups = {"tensor": 1, "row": block.last - block.first, "column": block.columns}[granularity]
    products = np.zeros((count, count, groups))
    for first, left in enumerate(values):
        for second, right in enumerate(values[: first + 1]):
            if left is not None and right is not None:
                found = _products(left, right, block, granularity).cpu().numpy()
                products[first, second] = products[second, first] = found
    return products


def _products(
    left: torch.Tensor, right: torch.Tensor, block: Block, granularity: str
) -> torch.Tensor:
    if granularity == "tensor":
        return torch.dot(left, right).reshape(1)
    return (left * right).reshape(-1, block.columns).sum(dim=1 if granularity == "row" else 0)
