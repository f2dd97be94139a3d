"""DARE, DELLA and Breadcrumbs with the numbers of one recipe: a sparsifier per term and tensor.

The arithmetic is in `dare`, `della`, `breadcrumbs` and `merger.random_mask`; what comes behind the
sparsifiers is in `bound_sparse`. Knows no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from merger.blocks import Block
from merger.errors import InputError
from merger.kept_mask import ELEMENTS_OF_A_BYTE, KeptMask
from merger.methods import breadcrumbs, dare, della
from merger.methods.bound import Numbers
from merger.random_mask import RandomMask, random_mask
from merger.request import Recipe
from merger.task_vector import Delta, DeltaBlocks, Question, TaskVectors


@dataclass(frozen=True, slots=True)
class RandomDrop:
    """DARE of one delta."""

    mask: KeptMask
    density: float
    rescale: bool
    kept: int

    def apply(self, tau: torch.Tensor, block: Block) -> torch.Tensor:
        """Return the block of τ, dropped and rescaled."""
        if self.density == 1.0:
            return tau
        kept = torch.from_numpy(self.mask.kept(block))
        return dare.drop(tau, kept.to(tau.device), self.density, rescale=self.rescale)


class Dare:
    """DARE: every element is kept with probability `density`."""

    passes = 0

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Bind the recipe."""
        self._numbers = Numbers(recipe, layers)
        self._seed = seed_of(recipe)

    def check(self, name: str, term: int) -> None:
        """Accept all numbers that the schema accepts."""

    def sparsifier(self, vectors: TaskVectors, term: int, name: str, delta: Delta) -> RandomDrop:
        """Return the drop of a delta."""
        density = self._numbers.number("density", name, term)
        elements = vectors.elements(name)
        mask = vectors.recall(
            Question(
                "mask", (term,), name, (self._seed, density), nbytes=elements // ELEMENTS_OF_A_BYTE
            ),
            lambda: self._mask(vectors, term, name, density),
        )
        kept = round(density * elements)
        return RandomDrop(mask, density, self._numbers.choice("rescale"), kept)

    def _mask(self, vectors: TaskVectors, term: int, name: str, density: float) -> KeptMask:
        mask = random_mask(self._seed, vectors.digest(term), name)
        return KeptMask(mask, density, vectors.blocks(name))


@dataclass(frozen=True, slots=True)
class RankedDrop:
    """DELLA of one delta; `vector` has the probabilities of a tensor that is a single row."""

    mask: RandomMask
    density: float
    epsilon: float
    rescale: bool
    kept: int
    vector: della.Probabilities | None

    def apply(self, tau: torch.Tensor, block: Block) -> torch.Tensor:
        """Return the block of τ, dropped by rank and rescaled."""
        if self.vector is None:
            rows = tau.view(-1, block.columns)
            probabilities = della.keep_probabilities(rows, self.density, self.epsilon)
        else:
            probabilities = self.vector[block.start : block.stop]
        kept = torch.from_numpy(self.mask.kept(probabilities, block.start, block.stop))
        divisors = torch.from_numpy(probabilities).to(tau.device)
        return dare.drop(tau, kept.to(tau.device), divisors, rescale=self.rescale)


class Della:
    """DELLA: an element is kept with a probability that rises with its rank in its row."""

    passes = 1

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Bind the recipe."""
        self._numbers = Numbers(recipe, layers)
        self._seed = seed_of(recipe)

    def check(self, name: str, term: int) -> None:
        """Raise InputError where density - ε to density + ε are no probabilities."""
        density, epsilon = self._range(name, term)
        if not della.is_range(density, epsilon):
            why = (
                "expected density - epsilon above 0 and density + epsilon at most 1, "
                f"found density {density:g} and epsilon {epsilon:g}"
            )
            raise InputError(why, tensor=name, field="recipe.parameters.epsilon")

    def sparsifier(self, vectors: TaskVectors, term: int, name: str, delta: Delta) -> RankedDrop:
        """Return the drop of a delta."""
        density, epsilon = self._range(name, term)
        vector = None
        blocks = vectors.blocks(name)
        if len(vectors.shapes[name]) < 2 and blocks:
            # Its blocks are parts of one row.
            whole = torch.cat([delta.block(block) for block in blocks])
            vector = della.keep_probabilities(whole[None], density, epsilon)
        return RankedDrop(
            mask=random_mask(self._seed, vectors.digest(term), name),
            density=density,
            epsilon=epsilon,
            rescale=self._numbers.choice("rescale"),
            # The mean of the probabilities is the density.
            kept=round(density * vectors.elements(name)),
            vector=vector,
        )

    def _range(self, name: str, term: int) -> tuple[float, float]:
        density = self._numbers.number("density", name, term)
        return density, self._numbers.number("epsilon", name)


@dataclass(frozen=True, slots=True)
class BandKeep:
    """Breadcrumbs of one delta."""

    band: breadcrumbs.Band
    kept: int

    def apply(self, tau: torch.Tensor, block: Block) -> torch.Tensor:
        """Return the block of τ without outliers and noise."""
        return breadcrumbs.keep_band(tau, self.band, start=block.start)


class Breadcrumbs:
    """Breadcrumbs: the largest magnitudes are removed, the next are kept."""

    passes = 2

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Bind the recipe."""
        self._numbers = Numbers(recipe, layers)

    def check(self, name: str, term: int) -> None:
        """Raise InputError where more is to be kept than outliers leave."""
        density, gamma = self._shares(name, term)
        if not breadcrumbs.is_band(density, gamma):
            why = f"expected density + gamma at most 1, found {density:g} + {gamma:g}"
            raise InputError(why, tensor=name, field="recipe.parameters.gamma")

    def sparsifier(self, vectors: TaskVectors, term: int, name: str, delta: Delta) -> BandKeep:
        """Return the band of a delta."""
        blocks, elements = vectors.blocks(name), vectors.elements(name)
        removed, keep = breadcrumbs.band_counts(*self._shares(name, term), elements)
        band = vectors.recall(
            Question("band", (term,), name, (removed, keep)),
            partial(breadcrumbs.find_band, DeltaBlocks(delta, blocks), elements, removed, keep),
        )
        return BandKeep(band, keep)

    def _shares(self, name: str, term: int) -> tuple[float, float]:
        density = self._numbers.number("density", name, term)
        return density, self._numbers.number("gamma", name)


def seed_of(recipe: Recipe) -> int:
    """Return the seed of a recipe whose method uses chance."""
    assert recipe.seed is not None, "the request is refused without"
    return recipe.seed
