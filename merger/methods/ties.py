"""TIES: trim, elect sign, disjoint merge (Yadav et al. 2023, "TIES-Merging", NeurIPS).

Pure functions on N flat tensors (n,) in float32 or float64, trimmed already (trimming is
`merger.sparsify`). The paper has no weights. Ours multiply before the election, as mergekit's do;
with an `unweighted_` election afterwards, as PEFT's do: a term then agrees if its value before the
weight has the elected sign, so a negative weight turns its share round but never its vote, and a
term of weight 0 votes and is counted, yet adds nothing. `mean` divides by the number of agreeing
terms, so a lone term of weight -1 subtracts (in mergekit, which divides by their weights, it adds);
`weighted_mean` divides by their weights, of which none may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

UNWEIGHTED = "unweighted_"
"""Prefix of the elections that look at the values before the weights."""


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

    `total` is the sign of the sum of the values, `frequency` the sign of the sum of their signs;
    with `unweighted_` before it the values are those before the weights. The total is formed as
    (sum of the positive) + (sum of the negative values): it is 0 exactly where both weigh the same.
    """
    if election.removeprefix(UNWEIGHTED) == "total":
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
    weights: Sequence[float] = (),
    is_weighted: bool = True,
) -> torch.Tensor:
    """Return the disjoint merge of the values that agree with the elected sign (TIES step 3), (n,).

    `combine` is `mean` over the number of agreeing terms, `weighted_mean` over the sum of their
    weights (0 where that is 0), `sum`, or `max` by magnitude (the positive one of two equals). An
    element is zero unless at least `agreeing` terms agree. `weights` are needed for `weighted_mean`
    and where the values do not hold them yet (`is_weighted` false); agreement is then judged on the
    values as they are, and what is combined are wᵢ times the values.
    """
    if combine == "max":
        positive, negative = peaks(values) if is_weighted else _heaviest(values, weights)
    elif is_weighted:
        positive, negative = counted.positive, counted.negative
    else:
        positive, negative = _weigh(values, weights)
    if combine == "mean":
        positive = positive / counted.positives.clamp(min=1)
        negative = negative / counted.negatives.clamp(min=1)
    elif combine == "weighted_mean":
        above, below = _weights_of_sides(values, weights)
        positive = torch.where(above > 0, positive / above, 0.0)
        negative = torch.where(below > 0, negative / below, 0.0)
    if agreeing > 1:
        positive = torch.where(counted.positives >= agreeing, positive, 0.0)
        negative = torch.where(counted.negatives >= agreeing, negative, 0.0)
    merged = torch.where(sign > 0, positive, negative)
    # A sign of 0 is left only by `tie: zero`.
    return merged * sign.abs()


def _weigh(
    values: Sequence[torch.Tensor], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Σ wᵢ·valueᵢ over the positive and over the negative values."""
    positive, negative = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for value, weight in zip(values, weights, strict=True):
        positive += value.clamp(min=0) * weight
        negative += value.clamp(max=0) * weight
    return positive, negative


def _heaviest(
    values: Sequence[torch.Tensor], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the wᵢ·valueᵢ of largest magnitude among the positive and the negative values."""
    pairs = list(zip(values, weights, strict=True))
    found = []
    for side in (
        [value.clamp(min=0) * weight for value, weight in pairs],
        [value.clamp(max=0) * weight for value, weight in pairs],
    ):
        highest, lowest = peaks(side)
        found.append(torch.where(-lowest > highest, lowest, highest))
    return found[0], found[1]


def _weights_of_sides(
    values: Sequence[torch.Tensor], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the weights of the positive and of the negative values."""
    above, below = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for value, weight in zip(values, weights, strict=True):
        _, _, is_above, is_below = _count(value)
        above += is_above * weight
        below += is_below * weight
    return above, below


def agreeing_count(min_agreement: float, terms: int) -> int:
    """Return the least number of `terms` whose share reaches `min_agreement`, in binary64."""
    return next(count for count in range(terms + 1) if count / terms >= min_agreement)
