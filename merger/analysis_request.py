"""What is to be analysed, as frozen values: a recipe, or operands without one. Knows no tensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import schemas
from merger import request
from merger.errors import InputError
from merger.request import BuildRequest

_KEYS = {"format_version", "numerics", "base", "terms", "recipe", "density"}


@dataclass(frozen=True, slots=True)
class AnalysisRequest:
    """Terms on a base; `has_recipe` says whether their merge is looked at, or only they.

    `density` is the share that is thought to be kept at random where no recipe says otherwise.
    """

    build: BuildRequest
    has_recipe: bool
    density: float


def parse(data: Any) -> AnalysisRequest:
    """Return the request in plain data; exactly one of `terms` and `recipe` is not null.

    Raises InputError naming the field, as for a build request.
    """
    if not isinstance(data, dict) or data.keys() != _KEYS:
        raise InputError(f"expected a map of {', '.join(sorted(_KEYS))}", field="request")
    terms, recipe, density = data["terms"], data["recipe"], data["density"]
    if (terms is None) == (recipe is None):
        raise InputError("expected either terms or a recipe", field="recipe")
    if type(density) not in (int, float) or not 0 < density <= 1:
        raise InputError(f"expected a number in (0, 1], found {density!r}", field="density")
    parsed = request.parse(
        {
            "format_version": data["format_version"],
            "numerics": data["numerics"],
            "base": data["base"],
            "recipe": _plain_sum(terms) if recipe is None else recipe,
            "output": {"form": "model", "dtype": "base", "max_shard_size": 1},
        }
    )
    if recipe is None:
        parsed = _in_given_order(parsed, terms)
    return AnalysisRequest(parsed, recipe is not None, float(density))


def _plain_sum(terms: Any) -> dict[str, Any]:
    if not isinstance(terms, list):
        raise InputError("expected a list of operands", field="terms")
    schema = schemas.methods()["task_arithmetic"]["properties"]
    return {
        "method": "task_arithmetic",
        "parameters": {name: parameter["default"] for name, parameter in schema.items()},
        "terms": [{"input": term, "weight": 1, "parameters": {}} for term in terms],
        "compute": "float32",
    }


def _in_given_order(parsed: BuildRequest, terms: list[Any]) -> BuildRequest:
    # Sorted for a build key; whoever compares operands finds them in the order of asking.
    names = [(term["kind"], term["name"], term.get("version")) for term in terms]
    ordered = sorted(
        parsed.recipe.terms,
        key=lambda term: names.index((term.operand.kind, term.operand.name, term.operand.version)),
    )
    return replace(parsed, recipe=replace(parsed.recipe, terms=tuple(ordered)))
