"""passthrough: layers are stacked as they are; an adapter is folded in, at weight 1.

The stack itself is the base of this method (`merger.stack`), so all that is left to add is the
delta of the one adapter, if any, that a tensor is taken from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from merger.methods.bound import Run, WeightedSum
from merger.request import Recipe
from merger.task_vector import Delta, TaskVectors


class Passthrough:
    """base + τ of the operand that a tensor comes from."""

    __slots__ = ("_terms",)
    passes = 1

    def __init__(self, recipe: Recipe, _layers: int) -> None:
        """Bind the recipe."""
        self._terms = len(recipe.terms)

    def check(self, names: Iterable[str]) -> None:
        """Accept everything."""

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Need nothing."""

    def step(self, _name: str, _vectors: TaskVectors, deltas: Mapping[int, Delta]) -> WeightedSum:
        """Return the sum of the deltas, of which there is one."""
        return WeightedSum((1.0,) * len(deltas))

    def weights(self, _name: str) -> tuple[float, ...]:
        """Return 1 for every term."""
        return (1.0,) * self._terms

    def kept(self) -> None:
        """Trim nothing."""
