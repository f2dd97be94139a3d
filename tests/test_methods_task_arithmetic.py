"""Coefficients and sums of task arithmetic, and of the average, on numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from merger.methods import averages, task_arithmetic
from merger.methods.task_arithmetic import WeightError


def coefficients(weights: list[float], lambda_: float = 1.0, *, normalize: bool = False) -> list:
    return list(task_arithmetic.coefficients(weights, lambda_=lambda_, normalize=normalize))


def test_lambda_multiplies_every_weight() -> None:
    assert coefficients([1.0, -0.5], 0.5) == [0.5, -0.25]


def test_normalize_divides_by_the_sum_of_all_weights() -> None:
    assert coefficients([1.0, 3.0], 2.0, normalize=True) == [0.5, 1.5]


def test_the_average_divides_by_the_sum_of_all_weights() -> None:
    assert averages.coefficients([2.0, 2.0, 0.0]) == (0.5, 0.5, 0.0)


def test_a_lone_weight_has_the_coefficient_one() -> None:
    assert averages.coefficients([0.3]) == (1.0,)


def test_weights_whose_sum_overflows_are_still_averaged() -> None:
    assert averages.coefficients([1e308, 1e308]) == (0.5, 0.5)


@pytest.mark.parametrize("weights", [[1.0, -0.5], [0.0, 0.0], [-1.0]])
def test_weights_that_cannot_be_divided_by_their_sum_are_refused(weights: list[float]) -> None:
    with pytest.raises(WeightError):
        averages.coefficients(weights)
    with pytest.raises(WeightError):
        coefficients(weights, normalize=True)


def test_weighing_and_adding_leave_the_task_vectors_alone() -> None:
    taus = [torch.tensor([1.0, -2.0]), torch.tensor([4.0, 8.0])]

    total = task_arithmetic.total(task_arithmetic.weigh(taus, [1.0, -0.5]))

    assert total.tolist() == [-1.0, -6.0]
    assert taus[0].tolist() == [1.0, -2.0]
