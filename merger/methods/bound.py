"""A recipe's method bound to its numbers: what the engine asks for, tensor by tensor.

Here schedules become numbers; the arithmetic is in the method's own file. `bound_ties` holds the
binding of TIES, whose scopes become passes over a task vector. Knows no file and no device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from merger.blocks import Block
from merger.errors import InputError
from merger.methods import averages, task_arithmetic
from merger.request import Recipe
from merger.task_vector import Delta, TaskVectors
from schemas.schedule import value_at

Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Map a function over items on several threads, results in the order of the items."""


class Step(Protocol):
    """A method at one tensor, for the terms that have it, in their order."""

    @property
    def kept(self) -> tuple[int, ...] | None:
        """Elements that each of these terms keeps, None if nothing is trimmed tensor by tensor."""

    def values(self, taus: Sequence[torch.Tensor], block: Block) -> list[torch.Tensor]:
        """Return the values of a block that are combined, flat: weighted, trimmed or dropped."""

    def combine(self, values: Sequence[torch.Tensor], block: Block) -> torch.Tensor:
        """Return the delta of a block from its values, flat."""


class Method(Protocol):
    """A method with the numbers of one recipe."""

    @property
    def passes(self) -> int:
        """How often the deltas of one tensor are read, at most."""

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError where the numbers have no meaning, before a tensor is read."""

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Look at the whole task vectors, where the method needs it, before the first step."""

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> Step:
        """Return the method at one tensor."""

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor, as the recipe has them."""

    def kept(self) -> tuple[int, ...] | None:
        """Return the elements that each term keeps in all, None if `Step.kept` tells."""


class Numbers:
    """The recipe's numbers at a tensor: schedules resolved, overrides of terms applied."""

    __slots__ = ("_layers", "_recipe")

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Take a recipe and the number of layers of its base."""
        self._recipe = recipe
        self._layers = layers

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return tuple(value_at(term.weight, name, self._layers) for term in self._recipe.terms)

    def number(self, parameter: str, name: str, term: int | None = None) -> float:
        """Return a numeric parameter at a tensor, for a term if it may differ there."""
        value = self._recipe.parameters[parameter]
        if term is not None:
            value = self._recipe.terms[term].parameters.get(parameter, value)
        return value_at(value, name, self._layers)

    def choice(self, parameter: str) -> Any:
        """Return a parameter that is no number."""
        return self._recipe.parameters[parameter]


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Step of the methods that add weighted deltas."""

    factors: tuple[float, ...]
    kept: None = None

    def values(self, taus: Sequence[torch.Tensor], _block: Block) -> list[torch.Tensor]:
        """Return cᵢ·τᵢ."""
        return task_arithmetic.weigh(taus, self.factors)

    def combine(self, values: Sequence[torch.Tensor], _block: Block) -> torch.Tensor:
        """Return Σ cᵢ·τᵢ."""
        return task_arithmetic.total(values)


class Additive:
    """linear and task_arithmetic: a sum with one coefficient per term and tensor."""

    __slots__ = ("_is_linear", "_numbers")
    passes = 1

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Bind the recipe."""
        self._is_linear = recipe.method == "linear"
        self._numbers = Numbers(recipe, layers)

    def coefficients(self, name: str) -> tuple[float, ...]:
        """Return the coefficient of every term of the recipe at a tensor."""
        weights = self._numbers.weights(name)
        try:
            if self._is_linear:
                return averages.coefficients(weights)
            return task_arithmetic.coefficients(
                weights,
                lambda_=self._numbers.number("lambda", name),
                normalize=self._numbers.choice("normalize"),
            )
        except task_arithmetic.WeightError as error:
            field = "recipe.terms" if self._is_linear else "recipe.parameters.normalize"
            raise InputError(str(error), tensor=name, field=field) from error

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError for weights that cannot be divided by their sum."""
        for name in names:
            self.coefficients(name)

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Need nothing."""

    def step(self, name: str, _vectors: TaskVectors, deltas: Mapping[int, Delta]) -> WeightedSum:
        """Return the sum at one tensor."""
        factors = self.coefficients(name)
        return WeightedSum(tuple(factors[term] for term in deltas))

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return self._numbers.weights(name)

    def kept(self) -> None:
        """Trim nothing."""
