"""Task arithmetic: base + λ Σ wᵢ τᵢ (Ilharco et al. 2023, "Editing Models with Task Arithmetic").

A negative weight subtracts. Pure functions on flat tensors and numbers; N is the number of terms
that have the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch


class WeightError(ValueError):
    """Weights cannot be divided by their sum."""


def coefficients(weights: Sequence[float], *, lambda_: float, normalize: bool) -> tuple[float, ...]:
    """Return λ·wᵢ, or λ·wᵢ / Σ wᵢ with `normalize`, in binary64.

    `weights` are those of all terms of the recipe at a tensor, whether they have it or not. λ and
    the divisor go into the coefficient, so each value is rounded once, not three times. Raises
    WeightError where dividing has no meaning: a negative weight, or a sum of 0.
    """
    if not normalize:
        return tuple(lambda_ * weight for weight in weights)
    if min(weights) < 0:
        msg = f"expected no negative weight to divide by the sum, found {min(weights)}"
        raise WeightError(msg)
    total = sum(Fraction(weight) for weight in weights)
    if total == 0:
        msg = "expected a sum of weights above 0, found 0"
        raise WeightError(msg)
    return tuple(lambda_ * float(Fraction(weight) / total) for weight in weights)


def weigh(taus: Sequence[torch.Tensor], factors: Sequence[float]) -> list[torch.Tensor]:
    """Return cᵢ·τᵢ for N flat tensors (n,), in their dtype, not in place."""
    return [
        tau if factor == 1.0 else tau * factor for tau, factor in zip(taus, factors, strict=True)
    ]


def total(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of N ≥ 1 flat tensors (n,), added in their order, in a tensor of its own."""
    if len(values) == 1:
        return values[0].clone()
    result = values[0] + values[1]
    for value in values[2:]:
        result += value
    return result
