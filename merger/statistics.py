"""Figures of a merge from the pass that computes it: norms, cosines, sign conflict, what was kept.

Sums run over blocks in their order, so they do not depend on the number of threads: within a block
in the compute dtype, between blocks in float64. Knows no file.

    norm            ‖τᵢ‖ of a term, before trimming, without its weight
    weighted_norm   ‖wᵢτᵢ‖
    kept            share of a term's elements that trimming or selecting keeps (zeros count as
                    elements); of a random drop the expected share
    cosines         of the terms' unweighted, untrimmed task vectors; 0 if one of them is zero
    sign_conflict   elements to which at least one term adds a positive and one a negative value,
                    as a share of those to which any term adds something (weighted, after trimming;
                    without the weights where signs are elected without them)
    delta_norm      ‖result - base‖ before the rounding on write
    nonzero         share of the touched tensors' elements with a delta that is not 0
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import torch

from merger import marks

_DIGITS = 7  # of a figure in the report; more would be noise


@dataclass(slots=True)
class TensorTally:
    """Sums over one tensor for the terms (by index) that have it."""

    terms: tuple[int, ...]
    weights: tuple[float, ...]
    elements: int
    kept: tuple[int, ...] | None = None
    products: list[float] = field(default_factory=list)
    squares: float = 0.0
    nonzero: int = 0
    reached: int = 0
    conflicts: int = 0

    def add(
        self, taus: Sequence[torch.Tensor], values: Sequence[torch.Tensor], delta: torch.Tensor
    ) -> None:
        """Add one block: its τ, its weighted and trimmed values, its delta."""
        pairs = combinations_with_replacement(taus, 2)
        products = [dot(left, right) for left, right in pairs]
        if self.products:
            products = [a + b for a, b in zip(self.products, products, strict=True)]
        self.products = products
        self.squares += dot(delta, delta)
        self.nonzero += marks.count_nonzero(delta)
        reached, conflicts = marks.count_signs(values)
        self.reached += reached
        self.conflicts += conflicts

    def join(self, other: TensorTally) -> None:
        """Add the sums over the blocks that follow."""
        if self.products and other.products:
            self.products = [a + b for a, b in zip(self.products, other.products, strict=True)]
        self.squares += other.squares
        self.nonzero += other.nonzero
        self.reached += other.reached
        self.conflicts += other.conflicts

    def norms(self) -> list[float]:
        """Return ‖τᵢ‖ of the terms."""
        products = self.pairs()
        return [math.sqrt(products[index, index]) for index in range(len(self.terms))]

    def pairs(self) -> dict[tuple[int, int], float]:
        """Return the dot products by the positions of two terms in `terms`."""
        positions = combinations_with_replacement(range(len(self.terms)), 2)
        products = self.products or [0.0] * (len(self.terms) * (len(self.terms) + 1) // 2)
        return dict(zip(positions, products, strict=True))


def dot(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the dot product of two flat tensors of one block."""
    product = float(torch.dot(left, right))
    if math.isfinite(product) or left.dtype == torch.float64:
        return product
    # A square beyond float32; the sum is still a number in float64 if the values are.
    return float(torch.dot(left.double(), right.double()))


def summarize(
    tallies: Mapping[str, TensorTally], labels: Sequence[str], *, kept: Sequence[int] | None
) -> dict[str, Any]:
    """Return the report's figures in all and per touched tensor, as plain data.

    `kept` is the number of elements that each term keeps in all, where it was not counted tensor
    by tensor.
    """
    elements = sum(tally.elements for tally in tallies.values())
    reached = sum(tally.reached for tally in tallies.values())
    conflicts = sum(tally.conflicts for tally in tallies.values())
    products = _all_products(tallies, len(labels))
    terms = [_term(tallies, term, label) for term, label in enumerate(labels)]
    for term, count in enumerate(kept or ()):
        terms[term]["kept"] = share(count, terms[term]["elements"])
    return {
        "touched": {"tensors": len(tallies), "elements": elements},
        "terms": terms,
        "cosines": cosines(products),
        "sign_conflict": share(conflicts, reached),
        "delta_norm": figure(math.sqrt(sum(tally.squares for tally in tallies.values()))),
        "nonzero": share(sum(tally.nonzero for tally in tallies.values()), elements),
        "tensors": {
            "columns": ["elements", "delta_norm", "nonzero", "sign_conflict", "terms", "norms"],
            "rows": {name: _row(tally) for name, tally in sorted(tallies.items())},
        },
    }


def _term(tallies: Mapping[str, TensorTally], term: int, label: str) -> dict[str, Any]:
    tensors = elements = kept = 0
    squares = weighted = 0.0
    for _, tally in sorted(tallies.items()):
        if term not in tally.terms:
            continue
        index = tally.terms.index(term)
        square = tally.pairs()[index, index]
        tensors += 1
        elements += tally.elements
        kept += tally.elements if tally.kept is None else tally.kept[index]
        squares += square
        weighted = math.hypot(weighted, tally.weights[index] * math.sqrt(square))
    return {
        "term": label,
        "tensors": tensors,
        "elements": elements,
        "norm": figure(math.sqrt(squares)),
        "weighted_norm": figure(weighted),
        "kept": share(kept, elements),
    }


def _all_products(tallies: Mapping[str, TensorTally], terms: int) -> list[list[float]]:
    products = [[0.0] * terms for _ in range(terms)]
    for _, tally in sorted(tallies.items()):
        for (left, right), product in tally.pairs().items():
            a, b = tally.terms[left], tally.terms[right]
            products[a][b] += product
            if a != b:
                products[b][a] += product
    return products


def cosines(products: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the cosines of vectors with these dot products; 0 if one of them is zero."""
    norms = [math.sqrt(products[term][term]) for term in range(len(products))]

    def cosine(a: int, b: int) -> float:
        if norms[a] * norms[b] == 0.0:
            return 0.0
        return 1.0 if a == b else figure(products[a][b] / (norms[a] * norms[b]))

    terms = range(len(products))
    return [[cosine(a, b) for b in terms] for a in terms]


def _row(tally: TensorTally) -> list[Any]:
    return [
        tally.elements,
        figure(math.sqrt(tally.squares)),
        share(tally.nonzero, tally.elements),
        share(tally.conflicts, tally.reached),
        list(tally.terms),
        [figure(norm) for norm in tally.norms()],
    ]


def share(part: float, whole: float) -> float:
    """Return a part of a whole as a figure of a report; 0 of nothing."""
    return figure(part / whole) if whole else 0.0


def figure(value: float) -> float:
    """Return a number with as many digits as reports have."""
    return float(f"{value:.{_DIGITS - 1}e}")
