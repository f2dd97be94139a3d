"""TIES: trim, elect sign, disjoint merge (Yadav et al. 2023, "TIES-Merging", NeurIPS).

Pure functions on N flat tensors (n,) in float32 or float64, weighted and trimmed already (trimming
is `merger.sparsify`). Where we differ from the paper's code: weights multiply before the election
(the paper has none, PEFT multiplies afterwards); `mean` divides by the number of agreeing terms,
not by their weights, so a lone term of weight -1 subtracts (in mergekit it adds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Tally:
    """Per element, over the terms: sums of the positive and of the negative values, and how many.

    All four are (n,) in the values' dtype; `negative` is ≤ 0, the counts are whole numbers.
    """

    positive: torch.Tensor
    negative: torch.Tensor
    positives: torch.Tensor
    negatives: torch.Tensor


def tally(values: Sequence[torch.Tensor]) -> Tally:
    """Return the tally of N ≥ 1 tensors, added in their order."""
    positive, negative, positives, negatives = _count(values[0])
    for value in values[1:]:
        above, below, is_above, is_below = _count(value)
        positive += above
        negative += below
        positives += is_above
        negatives += is_below
    return Tally(positive, negative, positives, negatives)


def _count(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    # ceil(clamp(x, 0, 1)) is 1 exactly where x > 0; a comparison with its mask costs four times
    # as much on a CPU.
    above, below = value.clamp(min=0), value.clamp(max=0)
    return above, below, above.clamp(max=1).ceil_(), below.clamp(min=-1).floor_().neg_()


def elect(counted: Tally, election: str) -> torch.Tensor:
    """Return the elected sign per element: +1, -1, or 0 for a tie (TIES step 2), (n,).

    `total` is the sign of Σ wᵢτᵢ, `frequency` the sign of the sum of their signs. The total is
    formed as (sum of the positive) + (sum of the negative values): it is 0 exactly where both
    weigh the same.
    """
    if election == "total":
        return torch.sign(counted.positive + counted.negative)
    return torch.sign(counted.positives - counted.negatives)


def break_ties(
    sign: torch.Tensor, values: Sequence[torch.Tensor], *, tie: str, majority: float
) -> torch.Tensor:
    """Return the signs with every 0 decided by `tie`, (n,).

    `positive` gives +1; `largest` the sign of the largest magnitude, +1 for equal ones; `majority`
    the sign of `majority`, the sum of all elected signs of the scope, +1 if that is 0 (as the
    paper's code means it); `zero` leaves 0, which means no value.
    """
    if tie == "zero":
        return sign
    if tie == "largest":
        highest, lowest = peaks(values)
        decided = 1.0 - 2.0 * (-lowest > highest).to(sign.dtype)
        return torch.where(sign == 0, decided, sign)
    # Half a step to the deciding side moves a 0 and nothing else; cheaper than a mask.
    decided_all = -0.5 if tie == "majority" and majority < 0 else 0.5
    return torch.sign(sign + decided_all)


def peaks(values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest positive and the largest negative value per element, 0 if none, (n,)."""
    highest, lowest = values[0].clamp(min=0), values[0].clamp(max=0)
    for value in values[1:]:
        torch.maximum(highest, value, out=highest)
        torch.minimum(lowest, value, out=lowest)
    return highest, lowest


def merge(
    counted: Tally,
    sign: torch.Tensor,
    values: Sequence[torch.Tensor],
    *,
    combine: str,
    agreeing: int,
) -> torch.Tensor:
    """Return the disjoint merge of the values that agree with the elected sign (TIES step 3), (n,).

    `combine` is `mean` over the number of agreeing terms, `sum`, or `max` by magnitude. An element
    is zero unless at least `agreeing` terms agree.
    """
    if combine == "max":
        positive, negative = peaks(values)
    elif combine == "mean":
        positive = counted.positive / counted.positives.clamp(min=1)
        negative = counted.negative / counted.negatives.clamp(min=1)
    else:
        positive, negative = counted.positive, counted.negative
    if agreeing > 1:
        positive = torch.where(counted.positives >= agreeing, positive, 0.0)
        negative = torch.where(counted.negatives >= agreeing, negative, 0.0)
    merged = torch.where(sign > 0, positive, negative)
    # A sign of 0 is left only by `tie: zero`.
    return merged * sign.abs()


def agreeing_count(min_agreement: float, terms: int) -> int:
    """Return the least number of `terms` whose share reaches `min_agreement`, in binary64."""
    return next(count for count in range(terms + 1) if count / terms >= min_agreement)
