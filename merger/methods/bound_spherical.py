"""Spherical means and Model Stock bound to the numbers of one recipe.

Two passes over a tensor's blocks: one for the Gram matrices of the operands, one for the sum with
the coefficients that follow from them. The arithmetic is in `gram`, `spherical` and `model_stock`.
Knows no file and no device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

import schemas
from merger.blocks import Block
from merger.errors import InputError
from merger.methods import averages, model_stock, spherical, task_arithmetic
from merger.methods.bound import Numbers, Run
from merger.methods.gram import Array, gram_matrices, granularity_at
from merger.methods.spherical import Combination
from merger.methods.task_arithmetic import WeightError
from merger.request import Recipe
from merger.task_vector import Delta, Question, TaskVectors


@dataclass(frozen=True, slots=True)
class Factors:
    """One coefficient per group, (G,) in float64."""

    values: Array
    granularity: str

    def times(self, values: torch.Tensor, block: Block) -> torch.Tensor:
        """Return the coefficients times the flat values of a block, in their dtype."""
        if self.granularity == "tensor":
            return task_arithmetic.weigh([values], [float(self.values[0])])[0]
        rows = self.values[block.first : block.last, None]
        factors = rows if self.granularity == "row" else self.values[None]
        return (values.reshape(-1, block.columns) * torch.from_numpy(factors).to(values)).reshape(
            -1
        )


@dataclass(frozen=True, slots=True)
class CombinationStep:
    """Σ cᵢτᵢ + κ·base at one tensor; `base` is None where κ is 0 everywhere."""

    operands: tuple[Factors, ...]
    more: Factors
    base: Delta | None
    kept: None = None

    def values(self, taus: Sequence[torch.Tensor], block: Block) -> list[torch.Tensor]:
        """Return cᵢ·τᵢ."""
        return [factors.times(tau, block) for factors, tau in zip(self.operands, taus, strict=True)]

    def combine(self, values: Sequence[torch.Tensor], block: Block) -> torch.Tensor:
        """Return Σ cᵢ·τᵢ + κ·base."""
        total = task_arithmetic.total(values)
        if self.base is not None:
            total += self.more.times(self.base.block(block), block)
        return total


class Spherical:
    """slerp, nuslerp, multislerp, karcher, model_stock.

    A term without the tensor has τ = 0 there and is an operand like any other.
    """

    __slots__ = ("_numbers", "_recipe")
    passes = 2

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Bind the recipe."""
        self._recipe = recipe
        self._numbers = Numbers(recipe, layers)

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError for weights that cannot be divided by their sum."""
        if schemas.methods()[self._recipe.method].get("x-averages", False):
            for name in names:
                self._shares(name)

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Need nothing."""

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> CombinationStep:
        """Return the combination at one tensor, after the pass that finds its angles."""
        asked = self._recipe.parameters.get("granularity", "tensor")
        granularity = granularity_at(asked, vectors.shapes[name])
        operands: list[Delta | None] = [deltas.get(term) for term in range(len(vectors))]
        base = vectors.base(name) if self._is_of_models else None
        if base is not None:
            operands.append(base)
        grams = vectors.recall(
            Question("gram", tuple(range(len(vectors))), name, (granularity, len(operands))),
            lambda: tuple(gram_matrices(operands, vectors.blocks(name), granularity)),
        )
        found = [self._combination(name, gram) for gram in grams]
        factors, more = _joined(found, len(vectors))
        return CombinationStep(
            tuple(Factors(factors[term], granularity) for term in deltas),
            Factors(more, granularity),
            base if bool(np.any(more != 0)) else None,
        )

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return self._numbers.weights(name)

    def kept(self) -> None:
        """Trim nothing."""

    @property
    def _is_of_models(self) -> bool:
        if self._recipe.method == "slerp":
            return True
        return bool(self._recipe.parameters.get("space") == "model")

    def _shares(self, name: str) -> tuple[float, ...]:
        try:
            return averages.coefficients(self._numbers.weights(name))
        except WeightError as error:
            raise InputError(str(error), tensor=name, field="recipe.terms") from error

    def _combination(self, name: str, gram: Array) -> Combination:
        terms = len(self._recipe.terms)
        if not bool(np.isfinite(gram).all()):
            # The values that are no numbers stop the build where they are summed, with their term.
            return Combination(np.full((terms, gram.shape[2]), np.nan), np.zeros(gram.shape[2]))
        method = self._recipe.method
        if method == "model_stock":
            factor = model_stock.factor(gram)
            return Combination(np.tile(factor, (terms, 1)), np.zeros_like(factor))
        if method == "slerp":
            return spherical.slerp(gram, self._numbers.number("t", name))
        shares = self._shares(name)
        if method == "nuslerp":
            return spherical.nuslerp(gram, shares)
        if method == "multislerp":
            return spherical.multislerp(gram, shares)
        return spherical.karcher(
            gram,
            shares,
            max_iterations=self._numbers.choice("max_iterations"),
            tolerance=self._numbers.number("tolerance", name),
        )


def _joined(found: Sequence[Combination], terms: int) -> tuple[Array, Array]:
    """Return the coefficients of all groups, (N, G) and (G,); zeros for an empty tensor."""
    if not found:
        return np.zeros((terms, 1)), np.zeros(1)
    operands = np.concatenate([one.operands for one in found], axis=1)
    return operands, np.concatenate([one.base for one in found])
