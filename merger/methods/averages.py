"""Linear: Σ wᵢ θᵢ / Σ wᵢ; equal weights give the uniform soup (Wortsman et al. 2022).

With θᵢ = base + τᵢ this is base + Σ wᵢ τᵢ / Σ wᵢ, so only task vectors are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

from merger.methods import task_arithmetic


def coefficients(weights: Sequence[float]) -> tuple[float, ...]:
    """Return wᵢ / Σ wᵢ in binary64, Σ over all terms of the recipe at one tensor.

    A term without the tensor is the base there, so its weight counts in the sum. Raises
    WeightError for a negative weight or a sum of 0.
    """
    return task_arithmetic.coefficients(weights, lambda_=1.0, normalize=True)
