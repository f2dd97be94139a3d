"""Gram matrices in groups, over several blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merger.blocks import Block
from merger.methods.gram import gram_matrices, granularity_at
from merger.task_vector import HeldDelta

BLOCKS = (Block(0, 2, 3), Block(2, 3, 3))
ONE = np.arange(1.0, 10.0).reshape(3, 3)
TWO = np.array([[1.0, 0.0, -1.0], [2.0, 2.0, 2.0], [0.0, 5.0, 0.0]])


class Matrix:
    def __init__(self, values: np.ndarray) -> None:
        self.values = torch.tensor(values, dtype=torch.float32).reshape(-1)

    def block(self, block: Block) -> torch.Tensor:
        return self.values[block.start : block.stop]

    def factors(self) -> None:
        return None


def grams(granularity: str) -> np.ndarray:
    operands = [HeldDelta(Matrix(ONE), BLOCKS), None, HeldDelta(Matrix(TWO), BLOCKS)]
    return np.concatenate(list(gram_matrices(operands, BLOCKS, granularity)), axis=2)


@pytest.mark.parametrize(
    ("granularity", "axes"), [("tensor", (0, 1)), ("row", (1,)), ("column", (0,))]
)
def test_products_are_summed_over_each_group(granularity: str, axes: tuple[int, ...]) -> None:
    found = grams(granularity)

    np.testing.assert_array_equal(found[0, 0], np.atleast_1d((ONE * ONE).sum(axis=axes)))
    np.testing.assert_array_equal(found[0, 2], np.atleast_1d((ONE * TWO).sum(axis=axes)))
    np.testing.assert_array_equal(found, found.transpose(1, 0, 2))


class Computed:
    """Values that every read computes into new memory."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def block(self, block: Block) -> torch.Tensor:
        return self.values[block.start : block.stop].clone()

    def factors(self) -> None:
        return None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_held_has_the_products_of_what_is_computed_again(dtype: torch.dtype) -> None:
    # Rows of no whole number of vector registers: one block in three has another sum, displaced.
    blocks = [Block(first, first + 9, 101) for first in range(0, 900, 9)]
    numbers = np.random.default_rng(0).standard_normal(900 * 101)
    computed = Computed(torch.from_numpy(numbers).to(dtype))
    held = HeldDelta(computed, blocks)

    for block in blocks:
        one, other = held.block(block), computed.block(block)
        assert torch.equal(one, other)
        assert torch.dot(one, one) == torch.dot(other, other)
    again, kept = (list(gram_matrices([one], blocks, "tensor")) for one in (computed, held))
    np.testing.assert_array_equal(again, kept)


def test_an_operand_that_is_not_there_is_zero() -> None:
    assert not grams("row")[1].any()


def test_products_of_float32_are_exact() -> None:
    value = np.float32(1 + 2**-23)
    operand = HeldDelta(Matrix(np.full((3, 3), value)), BLOCKS)

    (found,) = gram_matrices([operand], BLOCKS, "tensor")

    assert found[0, 0, 0] == 9 * float(value) ** 2


@pytest.mark.parametrize(
    ("shape", "expected"), [((), "tensor"), ((4,), "tensor"), ((4, 5), "row"), ((4, 5, 6), "row")]
)
def test_only_matrices_have_rows(shape: tuple[int, ...], expected: str) -> None:
    assert granularity_at("row", shape) == expected


def test_a_tensor_without_elements_has_no_gram_matrix() -> None:
    assert list(gram_matrices([None], (), "tensor")) == []
