"""Trim: keep the largest magnitudes, exactly as many as asked. Knows no model and no file.

Where the line runs is found by `merger.selection`.
"""

from __future__ import annotations

import math

import torch

from merger.selection import Cut


def kept_count(density: float, elements: int) -> int:
    """Return how many of `elements` a trim keeps: max(1, ⌊density·n⌋), the product in binary64."""
    return max(1, math.floor(density * elements))


def trim(tau: torch.Tensor, cut: Cut, *, start: int) -> torch.Tensor:
    """Return τ with everything that the cut does not keep set to zero (TIES step 1).

    `tau` is flat (n,), its first element at position `start` of the scope; float32 or float64 in
    and out, not in place. Yadav et al. 2023, section 3; unlike the paper's code, whose threshold
    keeps one more and all equal magnitudes, exactly as many are kept as were asked.
    """
    inside = min(max(cut.through + 1 - start, 0), len(tau))
    if inside == len(tau):
        return _at_least(tau, cut.value)
    if inside == 0:
        return _above(tau, cut.value)
    return torch.cat([_at_least(tau[:inside], cut.value), _above(tau[inside:], cut.value)])


def _above(tau: torch.Tensor, value: float) -> torch.Tensor:
    # hardshrink zeroes |x| <= λ in one pass without a mask.
    return torch.nn.functional.hardshrink(tau, value)


def _at_least(tau: torch.Tensor, value: float) -> torch.Tensor:
    if value == 0.0:
        return tau
    zero = torch.zeros((), dtype=tau.dtype)
    below = torch.nextafter(torch.tensor(value, dtype=tau.dtype), zero)
    return torch.nn.functional.hardshrink(tau, below.item())
