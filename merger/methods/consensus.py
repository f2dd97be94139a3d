"""Consensus task arithmetic: keep what matters to enough terms (Wang et al. 2024, TALL masks).

Pure function on N flat tensors (n,) in float32 or float64, weighted already: with vᵢ = wᵢτᵢ and
τ = Σ vᵢ an element matters to term i if |vᵢ| ≥ mask_lambda·|τ - vᵢ| (the paper's mask; its code has
> there, which differs for equal values alone). Elements that matter to fewer than `min_terms` terms
are set to zero: to none (the paper's catastrophic weights) or, with 2, to a single one (its selfish
weights). Where we differ: the paper has no weights and sums plain task vectors; its code chooses
mask_lambda per task on validation data, here it is one number; weights go by magnitude, so a
subtracted term has a say like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from merger.methods import task_arithmetic


def merge(
    values: Sequence[torch.Tensor], *, mask_lambda: float, min_terms: int, absent: int
) -> torch.Tensor:
    """Return Σ vᵢ where it matters to at least `min_terms` terms, zero elsewhere, (n,).

    `absent` is the number of the recipe's terms without the tensor: zero there, so they count
    where mask_lambda is 0 and everything matters to everyone.
    """
    whole = task_arithmetic.total(values)
    count = torch.full_like(whole, absent if mask_lambda == 0.0 else 0.0)
    for value in values:
        others = (whole - value).abs_().mul_(mask_lambda)
        count += value.abs().ge_(others)
    return whole * (count >= min_terms).to(whole.dtype)
