"""SCE: select, calculate, erase (Wan et al. 2024, "FuseChat", section 3).

Of a tensor those elements are selected on which the terms differ most, by variance; a term's weight
is the mean square of its selected values; per element values against the sign of the sum are
erased and the others averaged by weight. Pure functions on flat tensors (n,) in float32 or float64;
N is the number of terms of the recipe, a term without the tensor being zero there.

As in mergekit the selection masks the values too (in FuseChat's own code it only decides on the
weights, and all elements are merged), and signs are elected without the weights. Where we differ
from both: exactly max(1, ⌊density·n⌋) elements are selected, n counting all of them, lowest index
first among equals, where they take ⌊density·(elements of nonzero variance)⌋. An element of variance
0 is selected by density 1 alone, as there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from merger.methods import task_arithmetic
from merger.selection import Cut
from merger.sparsify import trim


def spread(taus: Sequence[torch.Tensor], terms: int) -> torch.Tensor:
    """Return N times the variance over `terms` terms, of which these have the tensor, (n,).

    Equal values have none: their mean need not be that value in floating point, and what rounding
    leaves would be selected.
    """
    mean = task_arithmetic.total(taus) / terms
    found = mean.square() * (terms - len(taus))
    for tau in taus:
        found += (tau - mean).square_()
    if len(taus) < terms:
        return found
    differ = torch.zeros_like(found, dtype=torch.bool)
    for tau in taus[1:]:
        differ |= tau != taus[0]
    return found * differ.to(found.dtype)


def select(
    taus: Sequence[torch.Tensor], cut: Cut | None, terms: int, *, start: int
) -> list[torch.Tensor]:
    """Return the terms' values with what the cut of `spread` leaves out set to zero.

    The first element stands at position `start` of the tensor; without a cut all is selected.
    """
    if cut is None:
        return list(taus)
    selected = (trim(spread(taus, terms), cut, start=start) != 0).to(taus[0].dtype)
    return [tau * selected for tau in taus]


def square_sum(value: torch.Tensor) -> float:
    """Return the sum of the squares of a block, in float64."""
    return float(value.double().square().sum())


def shares(squares: Sequence[float]) -> tuple[float, ...]:
    """Return the weights: each term's sum of squares by that of all; 0 if there is nothing."""
    whole = sum(squares)
    return tuple(square / whole if whole else 0.0 for square in squares)
