"""mergekit's generalised task arithmetic in our methods: ties, dare, della, breadcrumbs.

There it is one class with a way to sparsify and perhaps an election; `density` is the share kept,
as here. What it calls normalize is our `combine: weighted_mean` after an election.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry.mergekit.merge import Merge, Recipe
from registry.mergekit.reading import Input
from registry.mergekit.settings import REQUIRED
from schemas.schedule import Scheduled, numbers_of

DEFAULTS: Mapping[str, tuple[bool, bool]] = {
    "task_arithmetic": (False, False),
    "ties": (True, False),
    "dare_linear": (False, True),
    "dare_ties": (False, True),
    "della": (True, True),
    "della_linear": (False, True),
    "breadcrumbs": (False, False),
    "breadcrumbs_ties": (False, False),
}
"""Method to mergekit's defaults of normalize and rescale."""
_ELECTING = ("ties", "dare_ties", "della", "breadcrumbs_ties")
_RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")


def translate(merge: Merge) -> Recipe | None:
    """Return the recipe of one of these methods."""
    method = merge.config.method
    merge.require_base()
    merge.unused("int8_mask", "int8_mask changes how a mask is stored, not what is computed")
    weights = merge.each(merge.models, "weight", REQUIRED)
    parameters = {**_combining(merge, weights)}
    if method == "task_arithmetic":
        merge.unused("density", "mergekit's task_arithmetic reads density and does not use it")
        return Recipe(method, parameters, merge.terms(merge.models, weights))
    densities = [
        share(merge, value, "density", one)
        for one, value in zip(merge.models, merge.each(merge.models, "density", 1.0), strict=True)
    ]
    parameters |= _sparsifying(merge, densities)
    first = densities[0] if densities else 1.0
    if all(one == first for one in densities):
        parameters["density"] = first
        return Recipe(method, parameters, merge.terms(merge.models, weights))
    own = [{"density": one} for one in densities]
    return Recipe(method, parameters, merge.terms(merge.models, weights, own))


def share(
    merge: Merge, value: Scheduled | None, name: str, one: Input | None = None
) -> Scheduled | None:
    """Return a density as ours: a share in (0, 1]; mergekit takes more than 1 as 1."""
    if isinstance(value, float) and value > 1:
        merge.findings.note(f"{name} {value:g} keeps everything, as 1 does")
        return 1.0
    numbers = [] if value is None else numbers_of(value)
    if numbers and not 0 < min(numbers) <= max(numbers) <= 1:
        low, high = min(numbers), max(numbers)
        shown = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        message = f"expected {name} above 0 and at most 1, found {shown}"
        hint = "a model of density 0 has no effect: remove it" if low == high == 0 else ""
        merge.findings.problem(merge.place(name, one), message, hint)
    return value


def _combining(merge: Merge, weights: Sequence[Scheduled | None]) -> dict[str, Any]:
    """Return what becomes of normalize and lambda."""
    method = merge.config.method
    normalize = merge.flag("normalize", default=DEFAULTS[method][0])
    lambda_ = merge.number("lambda", 1.0)
    rest = {} if lambda_ == 1.0 else {"lambda": lambda_}
    if method in _ELECTING:
        if not normalize:
            return {"combine": "sum", **rest}
        lone = " and adds the model" if len(weights) == 1 else ""
        why = f"normalize divides a negative weight away{lone}, which no method here does"
        hint = "to subtract, write normalize: false; then combine: sum says the same here"
        merge.refuse_negative(weights, merge.models, why, hint)
        return {"combine": "weighted_mean", **rest}
    plain = {"normalize": normalize, **rest}
    if not normalize or all(weight is None or min(numbers_of(weight)) >= 0 for weight in weights):
        return plain
    numbers = [weight for weight in weights if isinstance(weight, float)]
    if len(numbers) < len(weights) or not isinstance(lambda_, float):
        why = "normalize with a negative weight in a schedule divides by what changes"
        merge.refuse_negative(weights, merge.models, why, "write normalize: false")
        return plain
    total = sum(numbers)
    # mergekit divides by 1 where the weights cancel.
    divisor = total if abs(total) >= 1e-8 else 1.0
    merge.findings.note(f"normalize divides by the sum of the weights, {divisor:g}: now in lambda")
    return {"normalize": False, "lambda": lambda_ / divisor}


def _sparsifying(merge: Merge, densities: Sequence[Scheduled | None]) -> dict[str, Any]:
    method = merge.config.method
    is_whole = all(one == 1.0 for one in densities)
    rescale = merge.flag("rescale", default=DEFAULTS[method][1])
    if method in _RANDOM:
        if not is_whole:
            _warn_of_chance(merge, rescale=rescale)
        extra = _epsilon(merge, densities, is_whole=is_whole) if "della" in method else {}
        return {"rescale": rescale, **extra}
    if rescale and not is_whole:
        message = (
            "rescale scales what is kept to the L1 norm of the whole, which no method here does"
        )
        merge.findings.problem(merge.place("rescale"), message, "write rescale: false")
    return _gamma(merge, densities, is_whole=is_whole) if "breadcrumbs" in method else {}


def _warn_of_chance(merge: Merge, *, rescale: bool) -> None:
    merge.findings.note(
        "what is dropped is drawn anew: mergekit's masks depend on its seed and on the order of "
        "its tasks, ours on recipe.seed, the operand and the tensor; no seed makes them equal"
    )
    if rescale:
        merge.findings.note(
            "mergekit's rescale scales what is kept to the L1 norm of the whole; here it is "
            "divided by the probability of keeping it, which is the same on average"
        )


def _epsilon(
    merge: Merge, densities: Sequence[Scheduled | None], *, is_whole: bool
) -> dict[str, Any]:
    if is_whole:
        merge.findings.note("density is 1 everywhere, so mergekit drops nothing: epsilon is 0")
        return {"epsilon": 0.0}
    epsilon = _one_for_all(merge, "epsilon", 0.15)
    reach = max(numbers_of(epsilon)) if epsilon is not None else 0.0
    for one, density in zip(merge.models, densities, strict=True):
        numbers = [] if density is None else numbers_of(density)
        if numbers and not reach < min(numbers) <= max(numbers) < 1 - reach:
            message = f"expected density ± epsilon inside (0, 1), found {numbers[0]:g} ± {reach:g}"
            merge.findings.problem(merge.place("density", one), message, "mergekit refuses it too")
    return {"epsilon": epsilon}


def _gamma(
    merge: Merge, densities: Sequence[Scheduled | None], *, is_whole: bool
) -> dict[str, Any]:
    if is_whole:
        merge.findings.note("density is 1 everywhere, so mergekit removes nothing: gamma is 0")
        return {"gamma": 0.0}
    gamma = _one_for_all(merge, "gamma", 0.01)
    reach = max(numbers_of(gamma)) if gamma is not None else 0.0
    highest = max((max(numbers_of(one)) for one in densities if one is not None), default=0.0)
    if highest + reach > 1:
        message = f"density {highest:g} and gamma {reach:g} are more than the whole"
        hint = "mergekit then removes fewer outliers; write gamma: 1 - density or less"
        merge.findings.problem(merge.place("gamma"), message, hint)
    return {"gamma": gamma}


def _one_for_all(merge: Merge, name: str, default: float) -> Scheduled | None:
    values = merge.each(merge.models, name, default)
    for one, value in zip(merge.models, values, strict=True):
        if value != values[0]:
            message = f"expected one {name} for all models, found another than that of the first"
            merge.findings.problem(merge.place(name, one), message)
    return values[0] if values else default
