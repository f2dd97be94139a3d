"""Model Breadcrumbs: remove the outliers and the noise of a delta (Davari and Belilovsky 2024).

Pure functions on flat tensors (n,). Of a tensor's n elements the ⌊gamma·n⌋ largest magnitudes are
removed and the next max(1, ⌊density·n⌋) kept, both products in binary64, zeros counted in n, lowest
index first among equals. As in mergekit a tensor is masked as a whole; the authors' code masks each
row (last dimension) by itself and leaves scalars alone. Where we differ from mergekit: a sum of
density and gamma above 1 is refused (there gamma gives way, and density 1 ignores it); where
⌊gamma·n⌋ is 0 no outlier is removed (there, in 0.1.5, nothing at all is kept then).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import torch

from merger.selection import Blocks, Cut, find_cut
from merger.sparsify import kept_count, trim


@dataclass(frozen=True, slots=True)
class Band:
    """The magnitudes that are kept: what `outer` keeps without what `removed` keeps."""

    outer: Cut
    removed: Cut | None


def is_band(density: float, gamma: float) -> bool:
    """Return whether so much can be kept beside what is removed."""
    return density + gamma <= 1.0


def band_counts(density: float, gamma: float, elements: int) -> tuple[int, int]:
    """Return how many of `elements` are removed as outliers, and how many kept below them."""
    keep = kept_count(density, elements)
    # A density too small to count still keeps one: gamma gives way to it.
    return max(0, min(floor(gamma * elements), elements - keep)), keep


def find_band(blocks: Blocks, elements: int, removed: int, keep: int) -> Band:
    """Return the band behind the `removed` largest magnitudes; reads the blocks for each cut."""
    outer = find_cut(blocks, elements, removed + keep)
    return Band(outer, find_cut(blocks, elements, removed) if removed else None)


def keep_band(tau: torch.Tensor, band: Band, *, start: int) -> torch.Tensor:
    """Return τ with everything outside the band set to zero, in its dtype, not in place.

    `tau` is flat (n,), its first element at position `start` of the tensor.
    """
    inner = trim(tau, band.outer, start=start)
    if band.removed is None:
        return inner
    # Either the same value or zero is taken away: exact.
    return inner - trim(tau, band.removed, start=start)
