"""Methods of merging: pure functions on tensors, one file per family.

    averages          linear
    task_arithmetic   task_arithmetic
    ties              ties
    passthrough       passthrough
    bound             a recipe's method with its numbers, tensor by tensor
    bound_ties        the same for TIES

Names, ranges and defaults of parameters stand in the merge schema and nowhere else; the table here
says only which code a name means. Nothing here knows models, files or devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from merger.methods.bound import Additive, Method
from merger.methods.bound_ties import Ties
from merger.methods.passthrough import Passthrough
from merger.request import Recipe

METHODS: Mapping[str, Callable[[Recipe, int], Method]] = {
    "linear": Additive,
    "task_arithmetic": Additive,
    "ties": Ties,
    "passthrough": Passthrough,
}
"""Name in a recipe to the method that is bound to it."""
