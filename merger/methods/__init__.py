"""Methods of merging: pure functions on tensors, one file per family.

    averages          linear
    task_arithmetic   task_arithmetic
    ties              ties
    dare              dare_linear, dare_ties: drop and rescale
    della             della_linear, della: keep probabilities
    breadcrumbs       breadcrumbs, breadcrumbs_ties
    sce               sce
    consensus         consensus
    bound             a recipe's method with its numbers, tensor by tensor
    bound_ties        the same for TIES
    bound_sparse      the same for methods that sparsify deltas in front of a sum or of TIES
    sparse_families   how they sparsify: DARE, DELLA, Breadcrumbs
    bound_sce         the same for SCE, bound_consensus for consensus
    bound_plugin      the same for a method that an installed package brings
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
from merger.methods.bound_consensus import Consensus
from merger.methods.bound_plugin import PluginMethod
from merger.methods.bound_sce import Sce
from merger.methods.bound_sparse import before_sum, before_ties
from merger.methods.bound_spectral import Spectral
from merger.methods.bound_spherical import Spherical
from merger.methods.bound_ties import Ties
from merger.methods.sparse_families import Breadcrumbs, Dare, Della
from merger.request import Recipe

METHODS: Mapping[str, Callable[[Recipe, int], Method]] = {
    "linear": Additive,
    "task_arithmetic": Additive,
    "ties": Ties,
    "dare_linear": before_sum(Dare),
    "dare_ties": before_ties(Dare, share="trim_density"),
    "della_linear": before_sum(Della),
    "della": before_ties(Della),
    "breadcrumbs": before_sum(Breadcrumbs),
    "breadcrumbs_ties": before_ties(Breadcrumbs),
    "sce": Sce,
    "consensus": Consensus,
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
"""Name in a recipe to the method that is bound to it; all others are of installed packages."""


def bind(recipe: Recipe, layers: int) -> Method:
    """Return the recipe's method with its numbers, for a base of so many layers."""
    return METHODS.get(recipe.method, PluginMethod)(recipe, layers)
