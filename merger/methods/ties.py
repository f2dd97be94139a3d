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

from merger import marks

UNWEIGHTED = "unweighted_"
"""Prefix of the elections that look at the values before the weights."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Per element, over the terms: sums of the positive and of the negative values, and how many.

    All four are (n,): the sums in the values' dtype, `negative` ≤ 0; the counts are whole numbers,
    in as many bytes as N terms need.
    """

    positive: torch.Tensor
    negative: torch.Tensor
    positives: torch.Tensor
    negatives: torch.Tensor


def tally(values: Sequence[torch.Tensor]) -> Tally:
    """Return the tally of N ≥ 1 tensors, added in their order."""
    dtype = _counts(len(values))
    positive, negative = values[0].clamp(min=0), values[0].clamp(max=0)
    positives, negatives = marks.above(values[0]).to(dtype), marks.below(values[0]).to(dtype)
    for value in values[1:]:
        positive += value.clamp(min=0)
        negative += value.clamp(max=0)
        positives += marks.above(value)
        negatives += marks.below(value)
    return Tally(positive, negative, positives, negatives)


def _counts(terms: int) -> torch.dtype:
    return torch.uint8 if terms <= torch.iinfo(torch.uint8).max else torch.int32


def elect(counted: Tally, election: str) -> torch.Tensor:
    """Return the elected sign per element: +1, -1, or 0 for a tie (TIES step 2), (n,) in int8.

    `total` is the sign of the sum of the values, `frequency` the sign of the sum of their signs;
    with `unweighted_` before it the values are those before the weights. The total is formed as
    (sum of the positive) + (sum of the negative values): it is 0 exactly where both weigh the same.
    """
    if election.removeprefix(UNWEIGHTED) == "total":
        return marks.signs(counted.positive + counted.negative)
    dtype = counted.positive.dtype
    return marks.signs(counted.positives.to(dtype) - counted.negatives.to(dtype))


def break_ties(
    sign: torch.Tensor, values: Sequence[torch.Tensor], *, tie: str, majority: float
) -> torch.Tensor:
    """Return the signs with every 0 decided by `tie`, (n,) in int8.

    `positive` gives +1; `largest` the sign of the largest magnitude, +1 for equal ones; `majority`
    the sign of `majority`, the sum of all elected signs of the scope, +1 if that is 0 (as the
    paper's code means it); `zero` leaves 0, which means no value.
    """
    if tie == "zero":
        return sign
    if tie == "largest":
        highest, lowest = peaks(values)
        # Two steps of the sign against one of the side: it decides where the sign is 0, only there.
        decided = marks.signs(sign * 2 + marks.signs(highest + lowest))
        return break_ties(decided, values, tie="positive", majority=0.0)
    # The last bit of 1 and of -1 is set already: setting it makes a 1 of 0, and moves nothing else.
    if tie == "majority" and majority < 0:
        return sign.neg().bitwise_or_(1).neg_()
    return sign | 1


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
    is_positive = marks.above(sign, 0)
    merged = _pick(is_positive, negative, positive)
    if combine == "mean" or agreeing > 1:
        count = _pick(is_positive, counted.negatives, counted.positives)
        if combine == "mean":
            merged /= count.clamp(min=1).to(merged.dtype)
        if agreeing > 1:
            merged = _pick(marks.below(count, agreeing), merged, torch.zeros_like(merged))
    if combine == "weighted_mean":
        above, below = _weights_of_sides(values, weights)
        weight = _pick(is_positive, below, above)
        # Where no weight is there, nothing is there.
        merged = _pick(marks.above(weight), torch.zeros_like(merged), merged / weight)
    if marks.count(marks.equal(sign, 0)):  # left only by `tie: zero`
        merged *= sign.abs().to(merged.dtype)
    return merged


_INTEGERS = {1: torch.uint8, 4: torch.int32, 8: torch.int64}


def _pick(marked: marks.Marks, without: torch.Tensor, with_: torch.Tensor) -> torch.Tensor:
    """Return the elements of `with_` where they are marked, of `without` elsewhere, bit for bit.

    A CPU takes torch.where thirty times as long where the marks follow no pattern.
    """
    integers = _INTEGERS[without.element_size()]
    mask = marked.to(integers).neg()  # all bits set where it is marked
    chosen = torch.bitwise_xor(without.view(integers), with_.view(integers))
    chosen &= mask
    chosen ^= without.view(integers)
    return chosen.view(without.dtype)


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
        found.append(_pick(marks.above(-lowest - highest), highest, lowest))
    return found[0], found[1]


def _weights_of_sides(
    values: Sequence[torch.Tensor], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the weights of the positive and of the negative values."""
    above, below = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for value, weight in zip(values, weights, strict=True):
        above += marks.above(value).to(value.dtype) * weight
        below += marks.below(value).to(value.dtype) * weight
    return above, below


def agreeing_count(min_agreement: float, terms: int) -> int:
    """Return the least number of `terms` whose share reaches `min_agreement`, in binary64."""
    return next(count for count in range(terms + 1) if count / terms >= min_agreement)
