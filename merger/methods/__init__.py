"""Methods of merging: pure functions on tensors, one file per family.

    averages          linear
    task_arithmetic   task_arithmetic
    ties              ties
    bound             a recipe's method with its numbers, tensor by tensor
    bound_ties        the same for TIES
    bound_plugin      the same for a method that an installed package brings

Names, ranges and defaults of parameters stand in the merge schema and nowhere else; the table here
says only which code a name means. Nothing here knows models, files or devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from merger.methods.bound import Additive, Method
from merger.methods.bound_plugin import PluginMethod
from merger.methods.bound_ties import Ties
from merger.request import Recipe

METHODS: Mapping[str, Callable[[Recipe, int], Method]] = {
    "linear": Additive,
    "task_arithmetic": Additive,
    "ties": Ties,
}
"""Name in a recipe to the method that is bound to it; all others are of installed packages."""


def bind(recipe: Recipe, layers: int) -> Method:
    """Return the recipe's method with its numbers, for a base of so many layers."""
    return METHODS.get(recipe.method, PluginMethod)(recipe, layers)
