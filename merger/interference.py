"""Sums over elements that say how task vectors agree and what a merge leaves of each of them.

Knows no file and no recipe. N is the number of terms, n that of the elements of a block. Sums run
over blocks, then tensors, in their order: within a block in the compute dtype, between blocks in
float64, so they do not depend on the number of threads. Counts are exact.

    norm            ‖τᵢ‖ of a term over the tensors that it has
    weighted_norm   ‖wᵢτᵢ‖
    nonzero         share of the elements of those tensors at which wᵢτᵢ is not 0
    cosines         of the τᵢ; a tensor that a term has not is a zero delta; 0 if a norm is 0
    sign_agreement  share of the elements at which both wᵢτᵢ and wⱼτⱼ are not 0 at which their signs
                    are the same; null if there is no such element; conflict is 1 - agreement
    sign_conflict   share of the elements at which any wᵢτᵢ is not 0 at which one is positive and
                    one negative
    expected        share of the same elements at which two values of opposite signs are expected
                    to be left after dropping each at random (DARE): the mean over them of
                    (1 - Π₊ (1 - dᵢ)) (1 - Π₋ (1 - dᵢ)), Π over the terms of that sign; for two
                    terms of density d that is sign_conflict · d²
    realised        share of the same elements at which two are left by the recipe's own masks
    result.norm, nonzero   of δ = result - base before the rounding on write
    result.survival    ⟨δ, wᵢτᵢ⟩ / ‖wᵢτᵢ‖²: 1 if the result goes as far along a term as the term
                       alone at its weight would, more where other terms push the same way, 0 or
                       less where nothing of it is left; null for a term that is zero
    result.signs_kept  share of the elements at which wᵢτᵢ is not 0 at which δ has its sign
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from merger import marks
from merger.statistics import cosines, dot, figure, share

_LOG_OF_NOTHING = -200.0  # log(1 - density) for a density of 1: its exponential is 0 in float32

_EXACT = 1 << 24  # whole numbers up to here are exact in float32; only a huge row has more elements


def _grid(terms: int) -> torch.Tensor:
    return torch.zeros((terms, terms), dtype=torch.float64)


def _row(terms: int) -> torch.Tensor:
    return torch.zeros(terms, dtype=torch.float64)


@dataclass(slots=True)
class Sums:
    """What is summed over elements for N terms: (N, N) by pairs, (N,) by terms, and in all."""

    products: torch.Tensor
    together: torch.Tensor
    agreement: torch.Tensor
    weighted: torch.Tensor
    tensors_of: torch.Tensor
    elements_of: torch.Tensor
    projections: torch.Tensor
    signs_kept: torch.Tensor
    tensors: int = 0
    elements: int = 0
    reached: int = 0
    conflicts: int = 0
    expected: float = 0.0
    realised: int = 0
    result_square: float = 0.0
    result_nonzero: int = 0

    @classmethod
    def of(cls, terms: int) -> Sums:
        """Return the sums over nothing."""
        return cls(
            products=_grid(terms),
            together=_grid(terms),
            agreement=_grid(terms),
            weighted=_row(terms),
            tensors_of=_row(terms),
            elements_of=_row(terms),
            projections=_row(terms),
            signs_kept=_row(terms),
        )

    def add(self, other: Sums) -> None:
        """Add the sums over other elements."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(slots=True)
class TensorSums:
    """The sums over one tensor while its blocks come, for the terms (by index) that have it.

    `weights` and `densities` are those of these terms at this tensor.
    """

    terms: tuple[int, ...]
    weights: tuple[float, ...]
    densities: tuple[float, ...]
    _local: Sums = field(init=False)

    def __post_init__(self) -> None:
        """Start with nothing."""
        self._local = Sums.of(len(self.terms))

    def add(self, taus: Sequence[torch.Tensor]) -> _Block:
        """Add one block of the terms' deltas, flat and in the compute dtype."""
        block = _Block(taus, self.weights)
        local = self._local
        # One by one, so that a pair has the same bits among whatever neighbours.
        products = [[dot(left, right) for right in taus[at:]] for at, left in enumerate(taus)]
        for at, row in enumerate(products):
            local.products[at, at:] += torch.tensor(row, dtype=torch.float64)
        local.together += block.count(block.present, block.present.T)
        local.agreement += block.count(block.signs, block.signs.T)
        self._add_conflicts(block)
        return block

    def _add_conflicts(self, block: _Block) -> None:
        logs = [math.log1p(-d) if d < 1 else _LOG_OF_NOTHING for d in self.densities]
        weights = [[1.0] * len(logs), logs]
        sums = torch.tensor(weights, dtype=block.signs.dtype, device=block.signs.device)
        positives, positive_log = sums @ block.signs.clamp(min=0)
        negatives, negative_log = sums @ block.signs.clamp(max=0).neg_()
        local = self._local
        local.reached += int(torch.count_nonzero(positives + negatives))
        local.conflicts += int(torch.count_nonzero(positives * negatives))
        both = positive_log.expm1_() * negative_log.expm1_()
        local.expected += float(both.sum(dtype=torch.float64))

    def add_result(self, block: _Block, delta: torch.Tensor) -> None:
        """Add the same block of the result's delta, flat."""
        local = self._local
        projections = [dot(tau, delta) for tau in block.taus]
        local.projections += torch.tensor(projections, dtype=torch.float64)
        sign = torch.sign(delta)
        is_there = sign.abs()
        same_minus_other = block.count(block.signs, sign)
        local.signs_kept += (block.count(block.present, is_there) + same_minus_other) / 2
        local.result_square += dot(delta, delta)
        local.result_nonzero += int(torch.count_nonzero(is_there))

    def add_left(self, block: _Block, values: Sequence[torch.Tensor]) -> None:
        """Add the same block of what a method's random masks leave of the terms, flat.

        Only where a value is 0 counts: before some elections it has no weight yet, so no sign.
        """
        pairs = zip(block.signs, values, strict=True)
        self._local.realised += marks.count_signs([sign * (value != 0) for sign, value in pairs])[1]

    def norms(self) -> list[float]:
        """Return ‖τᵢ‖ of these terms; not finite if a value is not."""
        return [float(square) for square in self._local.products.diagonal().sqrt()]

    def total(self, terms: int, elements: int) -> Sums:
        """Return the sums of the tensor with its `elements` for all the recipe's terms."""
        local, index = self._local, torch.tensor(self.terms)
        local.products += local.products.triu(1).T
        weights = torch.tensor(self.weights, dtype=torch.float64)
        local.weighted = weights.square() * local.products.diagonal()
        local.projections = weights * local.projections
        local.tensors_of += 1
        local.elements_of += elements
        whole = Sums.of(terms)
        for one in fields(Sums):
            part = getattr(local, one.name)
            if not isinstance(part, torch.Tensor):
                setattr(whole, one.name, part)
            elif part.dim() == 1:
                getattr(whole, one.name)[index] = part
            else:
                getattr(whole, one.name)[index[:, None], index] = part
        whole.tensors, whole.elements = 1, elements
        return whole


class _Block:
    """One block of N deltas, the signs of wᵢτᵢ (N, n), and where those are not 0."""

    __slots__ = ("present", "signs", "taus")

    def __init__(self, taus: Sequence[torch.Tensor], weights: Sequence[float]) -> None:
        self.taus = taus
        turns = [math.copysign(1.0, weight) if weight else 0.0 for weight in weights]
        signs = [torch.sign(tau).mul_(turn) for tau, turn in zip(taus, turns, strict=True)]
        self.signs = torch.stack(signs)
        self.present = self.signs.abs()

    def count(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return a product of signs over the elements: a whole number, exact."""
        if self.signs.shape[1] > _EXACT:
            left, right = left.double(), right.double()
        return (left @ right).double().cpu()


def figures(sums: Sums, *, has_masks: bool, has_result: bool) -> dict[str, Any]:
    """Return the figures of the module's table as plain data."""
    return {
        "tensors": sums.tensors,
        "elements": sums.elements,
        "terms": [_term(sums, term) for term in range(len(sums.weighted))],
        "cosines": cosines(sums.products.tolist()),
        "sign_agreement": _agreement(sums),
        "sign_conflict": share(sums.conflicts, sums.reached),
        "dare": {
            "expected": share(sums.expected, sums.reached),
            "realised": share(sums.realised, sums.reached) if has_masks else None,
        },
        "result": _result(sums) if has_result else None,
    }


def _term(sums: Sums, term: int) -> dict[str, Any]:
    elements = int(sums.elements_of[term])
    square = float(sums.products[term, term])
    return {
        "tensors": int(sums.tensors_of[term]),
        "elements": elements,
        "norm": figure(math.sqrt(square)),
        "weighted_norm": figure(math.sqrt(float(sums.weighted[term]))),
        "nonzero": share(int(sums.together[term, term]), elements),
    }


def _agreement(sums: Sums) -> list[list[float | None]]:
    rows = zip(sums.together.tolist(), sums.agreement.tolist(), strict=True)
    return [
        [
            figure((both + agreement) / 2 / both) if both else None
            for both, agreement in zip(*row, strict=True)
        ]
        for row in rows
    ]


def _result(sums: Sums) -> dict[str, Any]:
    counts = sums.together.diagonal().tolist()
    return {
        "norm": figure(math.sqrt(sums.result_square)),
        "nonzero": share(sums.result_nonzero, sums.elements),
        "survival": _parts(sums.projections.tolist(), sums.weighted.tolist()),
        "signs_kept": _parts(sums.signs_kept.tolist(), counts),
    }


def _parts(parts: Sequence[float], wholes: Sequence[float]) -> list[float | None]:
    return [
        figure(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)
    ]
