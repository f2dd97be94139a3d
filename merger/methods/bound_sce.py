"""SCE bound to the numbers of one recipe: the selection and the weights found before the merge.

The arithmetic is in `sce` and `ties`. Knows no file and no device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from merger.blocks import Block
from merger.methods import sce, ties
from merger.methods.bound import Numbers, Run
from merger.request import Recipe
from merger.selection import Cut, find_cut
from merger.sparsify import kept_count
from merger.task_vector import Delta, TaskVectors


@dataclass(frozen=True, slots=True)
class SceStep:
    """SCE at one tensor; `shares` are the weights of the terms that have it."""

    cut: Cut | None
    terms: int
    shares: tuple[float, ...]
    lambda_: float
    kept: tuple[int, ...]

    def values(self, taus: Sequence[torch.Tensor], block: Block) -> list[torch.Tensor]:
        """Return the selected values; signs are elected from them without the weights."""
        return sce.select(taus, self.cut, self.terms, start=block.start)

    def combine(self, values: Sequence[torch.Tensor], _block: Block) -> torch.Tensor:
        """Return λ times the weighted mean of the values that agree with the sign of their sum."""
        counted = ties.tally(values)
        elected = ties.elect(counted, "unweighted_total")
        merged = ties.merge(
            counted,
            ties.break_ties(elected, values, tie="positive", majority=0.0),
            values,
            combine="weighted_mean",
            agreeing=0,
            weights=self.shares,
            is_weighted=False,
        )
        return merged if self.lambda_ == 1.0 else merged * self.lambda_


@dataclass(frozen=True, slots=True)
class Sce:
    """SCE with the numbers of one recipe."""

    recipe: Recipe
    layers: int
    passes: int = 3

    @property
    def _numbers(self) -> Numbers:
        return Numbers(self.recipe, self.layers)

    def check(self, names: Iterable[str]) -> None:
        """Accept all numbers that the schema accepts."""

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Need nothing."""

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> SceStep:
        """Return SCE at one tensor, after the passes that selection and weights need."""
        spreads = _Spreads(tuple(deltas.values()), vectors.blocks(name), len(vectors))
        elements = vectors.elements(name)
        density = self._numbers.number("density", name)
        keep = kept_count(density, elements)
        # A density below 1 selects no variance of 0, not even where the one element is to be kept.
        cut = find_cut(spreads, elements, keep) if density < 1.0 else None
        return SceStep(
            cut=cut,
            terms=len(vectors),
            shares=sce.shares(spreads.square_sums(cut)),
            lambda_=self._numbers.number("lambda", name),
            kept=(keep,) * len(deltas),
        )

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor: 1 each, as the recipe has none."""
        return self._numbers.weights(name)

    def kept(self) -> None:
        """Keep what `Step.kept` tells."""


@dataclass(frozen=True, slots=True)
class _Spreads:
    """The spread of all deltas of one tensor, block by block, computed when it is asked for."""

    deltas: tuple[Delta, ...]
    blocks: tuple[Block, ...]
    terms: int

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> torch.Tensor:
        return sce.spread(self._taus(self.blocks[index]), self.terms)

    def square_sums(self, cut: Cut | None) -> list[float]:
        """Return the sum of squares of the selected values per term, block by block."""
        sums = [0.0] * len(self.deltas)
        for block in self.blocks:
            selected = sce.select(self._taus(block), cut, self.terms, start=block.start)
            sums = [sum_ + sce.square_sum(tau) for sum_, tau in zip(sums, selected, strict=True)]
        return sums

    def _taus(self, block: Block) -> list[torch.Tensor]:
        return [delta.block(block) for delta in self.deltas]
