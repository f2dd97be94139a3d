"""mergekit's methods in ours: the averages and the spheres.

`sparse` holds the task-vector family, `stack` passthrough.

Each function takes a `Merge` and returns method, parameters and terms of a recipe, or leaves
problems. What stands here was read in and measured with mergekit 0.1.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from registry.errors import did_you_mean
from registry.mergekit import sparse, stack
from registry.mergekit.merge import Merge, Recipe
from registry.mergekit.settings import REQUIRED

_ADD_BASE = "add the base to the catalog as a checkpoint too, and --map it to that"


def translate(merge: Merge) -> Recipe | None:
    """Return the recipe, or None with at least one problem."""
    method = merge.config.method
    if method not in METHODS:
        known = ", ".join(METHODS)
        message = f"no method here gives what mergekit's {method} gives"
        near = did_you_mean(method, METHODS)
        merge.findings.problem(("merge_method",), message, near or f"translated are {known}")
        return None
    recipe = METHODS[method](merge)
    if recipe is not None and not recipe.terms and method != "passthrough":
        message = "expected a model beside the base model, found none"
        merge.findings.problem(("merge_method",), message)
    return recipe


def _linear(merge: Merge) -> Recipe:
    weights = merge.each(merge.config.inputs, "weight", REQUIRED)
    normalize = merge.flag("normalize", default=True)
    numbers = [one for one in weights if isinstance(one, float)]
    is_constant = len(numbers) == len(weights)
    has_base = any(merge.is_catalog_base(one) for one in merge.config.inputs)
    total = sum(numbers)
    if not normalize and is_constant and abs(total - 1) > 1e-12:
        message = f"without normalize the weights scale the base too, by their sum {total:g}"
        merge.findings.problem(merge.place("normalize"), message, "let the weights sum to 1")
    elif not normalize and not is_constant:
        message = "without normalize the weights scale the base too, by their sum"
        merge.findings.problem(merge.place("normalize"), message, "write normalize: true")
    models = [
        (one, weight)
        for one, weight in zip(merge.config.inputs, weights, strict=True)
        if not merge.is_catalog_base(one)
    ]
    terms = merge.terms([one for one, _ in models], [weight for _, weight in models])
    if not has_base and (not is_constant or min(numbers, default=0) >= 0):
        return Recipe("linear", {}, terms)
    if any(isinstance(one, Mapping) for one in weights):
        message = "expected numbers as weights beside the base model, found a schedule"
        merge.findings.problem(merge.config.inputs[0].path, message, _ADD_BASE)
    if is_constant and abs(total) < 1e-12:
        merge.findings.problem(merge.config.inputs[0].path, "the weights sum to 0")
        return Recipe("linear", {}, terms)
    merge.findings.note(
        f"linear with the base model or a negative weight is base + Σ wτ / {total:g}: written as "
        "task_arithmetic"
    )
    return Recipe("task_arithmetic", {"lambda": 1 / total if total else 1.0}, terms)


def _slerp(merge: Merge) -> Recipe | None:
    t = merge.number("t", REQUIRED)
    config = merge.config
    if len(config.inputs) != 2 or config.base is None:
        message = f"expected two models, base_model one of them, found {len(config.inputs)}"
        merge.findings.problem(("merge_method",), message)
        return None
    ordered = sorted(config.inputs, key=lambda one: one.reference != config.base)
    _refuse_base(merge, ordered[0].reference == config.base)
    return Recipe("slerp", {"t": t}, merge.terms(ordered))


def _nuslerp(merge: Merge) -> Recipe:
    models = merge.models
    weights = merge.each(models, "weight", REQUIRED)
    merge.refuse_negative(weights, models, "nuslerp goes along the arc between two models")
    by_rows = merge.flag("nuslerp_row_wise", default=False)
    granularity = "tensor"
    if not merge.flag("nuslerp_flatten", default=True):
        # nuslerp_row_wise normalises along the first axis, which makes vectors of the columns.
        granularity = "column" if by_rows else "row"
    parameters = {"space": _space(merge), "granularity": granularity}
    return Recipe("nuslerp", parameters, merge.terms(models, weights))


def _multislerp(merge: Merge) -> Recipe:
    models = merge.models
    weights = merge.each(models, "weight", REQUIRED)
    merge.refuse_negative(weights, models, "multislerp averages")
    numbers = [one for one in weights if isinstance(one, float)]
    if not merge.flag("normalize_weights", default=True) and abs(sum(numbers) - 1) > 1e-12:
        message = "without normalize_weights only weights that sum to 1 give the same here"
        merge.findings.problem(merge.place("normalize_weights"), message)
    # It projects onto the tangent plane at μ instead of taking logarithms, and Σ ŵᵢ(uᵢ - (uᵢ·μ)μ)
    # is 0 for the μ of these weights. karcher starts there, and a first step longer than 1 radian
    # would need models that are almost opposite.
    merge.findings.note(
        "mergekit's step in the tangent space adds up to 0, so that its multislerp is the weighted "
        "mean of the directions: written as karcher that stops where it starts; multislerp here "
        "takes the step"
    )
    parameters = {"space": _space(merge), "max_iterations": 1, "tolerance": 1.0}
    return Recipe("karcher", parameters, merge.terms(models, weights))


def _karcher(merge: Merge) -> Recipe:
    _refuse_base(merge, merge.config.base is not None)
    merge.unused("weight", "mergekit's karcher gives every model the same weight")
    parameters = {
        "max_iterations": merge.constant("max_iter", default=10, kind=int),
        "tolerance": merge.constant("tol", default=1e-5, kind=float),
    }
    return Recipe("karcher", parameters, merge.terms(merge.config.inputs))


def _model_stock(merge: Merge) -> Recipe:
    granularity = "row" if merge.flag("filter_wise", default=False) else "tensor"
    merge.unused("weight", "mergekit's model_stock has no weights")
    merge.require_base()
    return Recipe("model_stock", {"granularity": granularity}, merge.terms(merge.models))


def _sce(merge: Merge) -> Recipe:
    merge.unused("int8_mask", "int8_mask changes how a mask is stored, not what is computed")
    merge.unused("weight", "mergekit's sce finds the weights itself")
    merge.require_base()
    density = sparse.share(merge, merge.number("select_topk", 1.0), "select_topk")
    return Recipe("sce", {"density": density}, merge.terms(merge.models))


def _space(merge: Merge) -> str:
    if merge.config.base is None:
        return "model"
    merge.require_base()
    return "task_vector"


def _refuse_base(merge: Merge, is_operand: bool) -> None:  # noqa: FBT001  said by its name
    base = merge.config.base
    operand = merge.operands[base] if base else None
    if is_operand and base and operand and operand.kind == "base":
        message = f"{base.text} is an operand here, and a base is no term of a recipe"
        merge.findings.problem(merge.config.base_path, message, _ADD_BASE)


METHODS: Mapping[str, Callable[[Merge], Recipe | None]] = {
    "linear": _linear,
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "karcher": _karcher,
    "model_stock": _model_stock,
    "sce": _sce,
    **dict.fromkeys(sparse.DEFAULTS, sparse.translate),
    "passthrough": stack.translate,
}
"""Name of a method of mergekit to its translation."""
