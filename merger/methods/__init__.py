"""Methods of merging: pure functions on tensors, one file per family.

    averages          linear
    task_arithmetic   task_arithmetic
    ties              ties
    bound             a recipe's method with its numbers, tensor by tensor
    bound_ties        the same for TIES
    spherical         slerp, nuslerp, multislerp, karcher
    model_stock       model_stock
    gram              Gram matrices of one tensor's operands
    bound_spherical   the same as `bound` for spherical means and Model Stock
    spectral          tsv_m, iso_c, iso_cts, the shared basis of knots
    bound_spectral    the same as `bound` for them

Names, ranges and defaults of parameters stand in the merge schema and nowhere else; the table here
says only which code a name means. Nothing here knows models, files or devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from merger.methods.bound import Additive, Method
from merger.methods.bound_spectral import Spectral
from merger.methods.bound_spherical import Spherical
from merger.methods.bound_ties import Ties
from merger.request import Recipe

METHODS: Mapping[str, Callable[[Recipe, int], Method]] = {
    "linear": Additive,
    "task_arithmetic": Additive,
    "ties": Ties,
    "slerp": Spherical,
    "nuslerp": Spherical,
    "multislerp": Spherical,
    "karcher": Spherical,
    "model_stock": Spherical,
    "tsv_m": Spectral,
    "iso_c": Spectral,
    "iso_cts": Spectral,
    "knots": Spectral,
}
"""Name in a recipe to the method that is bound to it."""
