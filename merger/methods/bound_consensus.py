"""Consensus task arithmetic bound to the numbers of one recipe.

The arithmetic is in `consensus`. Knows no file and no device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from merger.blocks import Block
from merger.errors import InputError
from merger.methods import consensus, task_arithmetic
from merger.methods.bound import Numbers, Run
from merger.request import Recipe
from merger.task_vector import Delta, TaskVectors


@dataclass(frozen=True, slots=True)
class ConsensusStep:
    """Consensus at one tensor."""

    weights: tuple[float, ...]
    mask_lambda: float
    min_terms: int
    absent: int
    lambda_: float
    kept: None = None

    def values(self, taus: Sequence[torch.Tensor], _block: Block) -> list[torch.Tensor]:
        """Return wᵢ·τᵢ."""
        return task_arithmetic.weigh(taus, self.weights)

    def combine(self, values: Sequence[torch.Tensor], _block: Block) -> torch.Tensor:
        """Return λ times the sum of the values where it matters to enough terms."""
        merged = consensus.merge(
            values,
            mask_lambda=self.mask_lambda,
            min_terms=self.min_terms,
            absent=self.absent,
        )
        return merged if self.lambda_ == 1.0 else merged * self.lambda_


class Consensus:
    """Consensus with the numbers of one recipe."""

    __slots__ = ("_min_terms", "_numbers", "_terms")
    passes = 1

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Bind the recipe."""
        self._numbers = Numbers(recipe, layers)
        self._min_terms = int(recipe.parameters["min_terms"])
        self._terms = len(recipe.terms)

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError if more terms are to agree than there are: nothing would be merged."""
        if self._min_terms > self._terms:
            why = f"expected at most the {self._terms} terms of the recipe, found {self._min_terms}"
            raise InputError(why, field="recipe.parameters.min_terms")

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Need nothing."""

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> ConsensusStep:
        """Return consensus at one tensor."""
        weights = self._numbers.weights(name)
        return ConsensusStep(
            weights=tuple(weights[term] for term in deltas),
            mask_lambda=self._numbers.number("mask_lambda", name),
            min_terms=self._min_terms,
            absent=len(vectors) - len(deltas),
            lambda_=self._numbers.number("lambda", name),
        )

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return self._numbers.weights(name)

    def kept(self) -> None:
        """Trim nothing."""
