"""What an adapter lost against the merged delta: per tensor, per layer, in all.

relative_error  ‖Δ - B·A‖ / ‖Δ‖, Frobenius norms, B and A as written: what was cut off and the
                rounding of the factors together; the product is formed in float64
energy          share of Σσ² that the kept singular values hold, before that rounding; 1 where
                nothing was cut off
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from merger.adapter_plan import Slot
from merger.blocks import Block
from merger.statistics import figure
from schemas.schedule import layer_of


@dataclass(frozen=True, slots=True)
class Written:
    """One tensor as written: ‖Δ - B·A‖², ‖Δ‖², and what the plan said of it."""

    name: str
    rank: int
    is_exact: bool
    lost: float
    whole: float
    energy: float


class Residual:
    """Sums of squares of Δ - B·A and of Δ, block by block, in float64."""

    __slots__ = ("_left", "_lost", "_right", "_whole")

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Take the factors (O, R) and (R, I) as they are written."""
        self._left = left.double()
        self._right = right.double()
        self._lost = 0.0
        self._whole = 0.0

    def add(self, block: Block, delta: torch.Tensor) -> None:
        """Add a block of Δ, flat."""
        exact = delta.double()
        product = torch.mm(self._left[block.first : block.last], self._right).reshape(-1)
        rest = exact - product
        self._lost += float(torch.dot(rest, rest))
        self._whole += float(torch.dot(exact, exact))

    def written(self, slot: Slot, energy: float) -> Written:
        """Return the figures of a tensor whose blocks were all added."""
        return Written(slot.name, slot.rank, slot.is_exact, self._lost, self._whole, energy)


def summarize(rank: int, tensors: Sequence[Written]) -> dict[str, Any]:
    """Return the report's part on the adapter, as plain data.

    `rank` is that of the files, `exact` the number of tensors of which nothing was cut off. Layers
    are numbers as text, `head` what lies outside of them.
    """
    layers: dict[str, list[Written]] = {}
    for one in tensors:
        layer = layer_of(one.name)
        layers.setdefault("head" if layer is None else str(layer), []).append(one)
    return {
        "rank": rank,
        "exact": sum(one.is_exact for one in tensors),
        "inexact": sum(not one.is_exact for one in tensors),
        "relative_error": _error(tensors),
        "largest_error": max(_error([one]) for one in tensors),
        "energy": _energy(tensors),
        "layers": {
            "columns": ["relative_error", "energy"],
            "rows": {
                layer: [_error(layers[layer]), _energy(layers[layer])]
                for layer in sorted(layers, key=_by_layer)
            },
        },
        "tensors": {
            "columns": ["rank", "exact", "relative_error", "energy"],
            "rows": {
                one.name: [one.rank, one.is_exact, _error([one]), figure(one.energy)]
                for one in sorted(tensors, key=lambda one: one.name)
            },
        },
    }


def _by_layer(name: str) -> tuple[int, str]:
    # Layers by number, what lies outside of them last.
    return (int(name), "") if name.isdigit() else (1 << 30, name)


def _error(group: Sequence[Written]) -> float:
    whole = math.fsum(one.whole for one in group)
    lost = math.fsum(one.lost for one in group)
    return figure(math.sqrt(lost / whole)) if whole else 0.0


def _energy(group: Sequence[Written]) -> float:
    whole = math.fsum(one.whole for one in group)
    kept = math.fsum(one.whole * one.energy for one in group)
    return figure(kept / whole) if whole else 1.0
