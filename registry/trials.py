"""Recipes to set beside each other, as labelled build requests for the same operands. Pure.

rank       every method with its default parameters and weights of 1
ablation   the declared recipe without one of its steps or one of its terms
line       the way from the first term to the second, where a barrier may stand
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import schemas
from registry.record import input_label
from registry.schema import method_parameters
from schemas import canonical
from schemas.expression import number

Request = Mapping[str, Any]
DECLARED = "declared"

BASIN = 0.02
"""Largest barrier within one basin: 2 % of error, as Frankle et al. 2020 (arXiv:1912.05671) have
it for the instability of training; of a perplexity it is 2 % of the larger end's logarithm."""


def trial(label: str, request: Request) -> dict[str, Any]:
    """Return a recipe as a search request has it."""
    return {"label": label, "request": dict(request)}


def rank(start: Request, methods: Iterable[str]) -> list[dict[str, Any]]:
    """Return the operands of a request under each method, with defaults and weights of 1."""
    count = len(start["recipe"]["terms"])
    return [trial(one, with_method(start, one)) for one in methods if _takes(one, count)]


def rankable() -> tuple[str, ...]:
    """Return the methods that compute something of whole models."""
    return tuple(one for one in schemas.methods() if one != "passthrough")


def _takes(method: str, terms: int) -> bool:
    schema = schemas.method(method)
    return bool(schema["x-terms"] <= terms <= schema.get("x-terms-max", terms))


def with_method(
    start: Request, method: str, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the operands of a request under another method, with weights of 1."""
    terms = [{**term, "weight": 1.0, "parameters": {}} for term in start["recipe"]["terms"]]
    return _under(start, method, parameters or {}, terms)


def _under(
    start: Request,
    method: str,
    parameters: Mapping[str, Any],
    terms: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    recipe, schema = start["recipe"], schemas.method(method)
    changed = {
        "method": method,
        "parameters": method_parameters(method, parameters),
        "terms": _ordered(method, terms),
        "compute": recipe["compute"],
    }
    if schema["x-seed"]:
        changed["seed"] = recipe.get("seed", 0)
    if "tokenizer" in recipe:
        changed["tokenizer"] = recipe["tokenizer"]
    return {**start, "recipe": changed}


def _ordered(method: str, terms: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if not schemas.method(method)["x-symmetric"]:
        return list(terms)
    return sorted(terms, key=lambda one: (one["input"]["digest"], canonical.canonical(one)))


def ablation(start: Request) -> list[dict[str, Any]]:
    """Return the steps that lead to a recipe, each with one more, then the recipe without a term.

    Of TIES: the plain sum of the weighted terms, the sum of the trimmed ones, that of those with
    the elected sign, and their mean, which is the whole (Yadav et al. 2023, section 3). Of methods
    that drop at random: without rescaling what is left.
    """
    recipe = start["recipe"]
    return [*_steps(start), *_without(start, recipe["method"])]


def _steps(start: Request) -> Iterator[dict[str, Any]]:
    recipe = start["recipe"]
    method, own = recipe["method"], recipe["parameters"]
    if method in ("task_arithmetic", "linear") or not schemas.method(method)["x-weights"]:
        return
    plain = [{**term, "parameters": {}} for term in recipe["terms"]]
    factor = {"lambda": own["lambda"]} if "lambda" in own else {}
    yield trial("sum", _under(start, "task_arithmetic", factor, plain))
    if method == "ties" and own["scope"] == "tensor":
        # Breadcrumbs without outliers to remove is the sum of trimmed terms.
        trim = {"density": own["density"], "gamma": 0.0, **factor}
        yield trial("trim", _under(start, "breadcrumbs", trim, plain))
        kept = {**own, "combine": "sum"}
        yield trial("trim, elect", _under(start, "ties", kept, recipe["terms"]))
    elif own.get("rescale"):
        yield trial("without rescaling", _changed(start, parameters={**own, "rescale": False}))


def _without(start: Request, method: str) -> Iterator[dict[str, Any]]:
    terms = start["recipe"]["terms"]
    if len(terms) > max(1, schemas.method(method)["x-terms"]):
        for position, term in enumerate(terms):
            rest = [one for place, one in enumerate(terms) if place != position]
            yield trial(f"without {input_label(term['input'])}", _changed(start, terms=rest))


def _changed(start: Request, **changes: Any) -> dict[str, Any]:
    return {**start, "recipe": {**start["recipe"], **changes}}


def line(start: Request, order: Sequence[str], steps: int) -> list[dict[str, Any]]:
    """Return `steps` averages from the first to the second of two terms, both ends among them.

    `order` are the labels of the terms, the first one at 0.
    """
    first, second = sorted(
        start["recipe"]["terms"], key=lambda one: order.index(input_label(one["input"]))
    )
    found = []
    for step in range(steps):
        share = round(step / (steps - 1), 6)
        weights = ((first, round(1 - share, 6)), (second, share))
        terms = [{**term, "weight": weight, "parameters": {}} for term, weight in weights]
        found.append(trial(number(share), _under(start, "linear", {}, terms)))
    return found


@dataclass(frozen=True, slots=True)
class Barrier:
    """How much higher the loss of one task stands on a line than between its ends, and where.

    The loss is 1 - utility, of a perplexity its logarithm. Height = max over t of L(t) - (1 - t)
    L(0) - t L(1), at least 0 (Frankle et al. 2020, section 2); `is_one_basin` where it is at most
    `BASIN`.
    """

    task: str
    height: float
    at: float
    is_one_basin: bool

    def text(self) -> str:
        """Return it as people read it."""
        if self.is_one_basin:
            return f"{self.task}: one basin, no barrier above {BASIN:g} (largest {self.height:.3g})"
        return f"{self.task}: a barrier of {self.height:.3g} at {number(self.at)}: two basins"


def barrier(task: str, losses: Sequence[float], *, is_logarithm: bool) -> Barrier:
    """Return the barrier of losses at even steps from one end of a line to the other."""
    last = len(losses) - 1
    above = [
        loss - (1 - step / last) * losses[0] - step / last * losses[-1]
        for step, loss in enumerate(losses)
    ]
    height = max(0.0, *above)
    bound = BASIN * max(losses[0], losses[-1]) if is_logarithm else BASIN
    at = above.index(max(above)) / last if height else 0.0
    return Barrier(task, height, at, height <= bound)
