"""Factors of a delta: sums by hand, the best cut by numpy, signs that are always the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merger import factorise


def ramp(rows: int, columns: int, step: float) -> torch.Tensor:
    values = torch.arange(rows * columns, dtype=torch.float32)
    return torch.sin(values * step).reshape(rows, columns)


def test_concatenated_factors_multiply_to_the_weighted_sum() -> None:
    one = (torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 0.0, 1.0]]))
    two = (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 2.0, 0.0], [0.0, 4.0, 8.0]]))

    left, right = factorise.concatenate((one, two), (2.0, -0.5))

    assert left.tolist() == [[2.0, -0.5, 0.0], [4.0, 0.0, -0.5]]
    assert (left @ right).tolist() == [[5.5, -1.0, 2.0], [12.0, -2.0, 0.0]]


@pytest.mark.parametrize("rank", [1, 3, 5, 6])
def test_a_compressed_product_is_the_best_of_its_rank(rank: int) -> None:
    left, right = ramp(7, 6, 0.7), ramp(6, 5, 1.3)
    product = left.double().numpy() @ right.double().numpy()
    u, s, vh = np.linalg.svd(product, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ vh[:rank]

    found = factorise.compress(left, right, rank)

    np.testing.assert_allclose((found.left @ found.right).numpy(), best, atol=1e-12)
    assert found.left.dtype == torch.float64
    assert found.energy == pytest.approx((s[:rank] ** 2).sum() / (s**2).sum(), rel=1e-12)


def test_the_largest_entry_of_each_left_vector_is_positive_and_both_sides_are_of_one_size() -> None:
    matrix = ramp(6, 4, 0.9).double()

    found = factorise.truncate(matrix, 3)
    again = factorise.truncate(-matrix, 3)

    largest = found.left.abs().argmax(dim=0)
    assert bool((found.left[largest, torch.arange(3)] > 0).all())
    torch.testing.assert_close(found.left.norm(dim=0), found.right.norm(dim=1))
    torch.testing.assert_close(again.left, found.left)
    torch.testing.assert_close(again.right, -found.right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_on_which_lapack_gives_up_is_cut_all_the_same(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    matrix = ramp(6, 4, 0.9).to(dtype)
    svd = torch.linalg.svd

    def stubborn(given: torch.Tensor, **options: bool) -> object:
        if given.shape == matrix.shape:
            raise torch.linalg.LinAlgError
        return svd(given, **options)

    expected = factorise.truncate(matrix, 2)
    monkeypatch.setattr(torch.linalg, "svd", stubborn)
    found = factorise.truncate(matrix, 2)

    assert found.left.dtype == found.right.dtype == dtype
    torch.testing.assert_close(found.left, expected.left)
    torch.testing.assert_close(found.right, expected.right)
    assert found.energy == pytest.approx(expected.energy)


def test_a_delta_of_zeros_has_factors_of_zeros() -> None:
    found = factorise.truncate(torch.zeros(3, 2), 2)

    assert not found.left.any()
    assert not found.right.any()
    assert found.energy == 1.0


def test_padding_keeps_the_product() -> None:
    left, right = factorise.pad(ramp(3, 1, 0.3), ramp(1, 2, 0.4), 4)

    assert left.shape == (3, 4)
    assert right.shape == (4, 2)
    torch.testing.assert_close(left @ right, ramp(3, 1, 0.3) @ ramp(1, 2, 0.4))
