"""What is to be searched, as frozen values, checked. Knows no tensor and no model.

Like a build request it has every default written out. A budget is not part of it, so that a search
with a larger one goes on where a smaller one ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merger import request
from merger.errors import InputError
from merger.request import BuildRequest
from merger.request_checks import expect_equal, expect_keys
from merger.search.objective import Objective, Task
from merger.search.space import Space, Variable
from schemas.utility import kind_of

FORMAT_VERSION = 1
STRATEGIES = ("none", "grid", "cma_es", "greedy_soup")
OBJECTIVES = ("mean", "worst", "retention")

_KEYS = (
    "format_version",
    "evaluator",
    "start",
    "suite",
    "references",
    "trials",
    "variables",
    "strategy",
    "objective",
    "held_out",
    "seed",
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe under the name that tables have for it; without one it is the base."""

    label: str
    request: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A declared recipe, what it is compared with, and what may be changed of it.

    `references` are what retention is measured by, the base and the ingredients alone; `trials` are
    other recipes for the same operands. With the strategy `none` nothing is searched.
    """

    start: BuildRequest
    suite: Mapping[str, Any]
    references: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    space: Space
    strategy: str
    population: int | None
    sigma: float
    objective: Objective
    held_out: float
    seed: int


def parse(data: Any) -> SearchRequest:
    """Return the search in plain data. Raises InputError naming the field."""
    expect_keys(data, "", required=_KEYS)
    expect_equal(data["format_version"], FORMAT_VERSION, "format_version")
    start = request.parse(data["start"])
    space = _space(data["variables"], start)
    strategy = data["strategy"]
    expect_keys(strategy, "strategy", required=("name", "population", "sigma"))
    name = _one_of(strategy["name"], STRATEGIES, "strategy.name")
    if (name == "none") != (not space.variables):
        raise InputError(
            "expected variables exactly where something is searched", field="variables"
        )
    share = _number(data["held_out"], "held_out", 0.0, 0.9)
    return SearchRequest(
        start=start,
        suite=data["suite"],
        references=_trials(data["references"], "references"),
        trials=_trials(data["trials"], "trials"),
        space=space,
        strategy=name,
        population=strategy["population"],
        sigma=_number(strategy["sigma"], "strategy.sigma", 0.0, 1.0),
        objective=_objective(data["objective"], data["suite"]),
        held_out=share,
        seed=_seed(data["seed"]),
    )


def _trials(data: Any, field: str) -> tuple[Trial, ...]:
    if not isinstance(data, list):
        raise InputError("expected a list", field=field)
    for index, one in enumerate(data):
        expect_keys(one, f"{field}[{index}]", required=("label", "request"))
    return tuple(Trial(one["label"], one["request"]) for one in data)


def _space(data: Any, start: BuildRequest) -> Space:
    if not isinstance(data, list):
        raise InputError("expected a list", field="variables")
    return Space(
        tuple(_variable(one, f"variables[{index}]", start) for index, one in enumerate(data))
    )


def _variable(data: Any, field: str, start: BuildRequest) -> Variable:
    keys = ("label", "parameter", "term", "values", "low", "high", "layers")
    expect_keys(data, field, required=keys)
    parameter, term = data["parameter"], data["term"]
    if (parameter is None) == (term is None):
        raise InputError("expected either a parameter or a term", field=field)
    if parameter is not None and parameter not in start.recipe.parameters:
        raise InputError(f"the method has no parameter {parameter}", field=f"{field}.parameter")
    if term is not None and (type(term) is not int or not 0 <= term < len(start.recipe.terms)):
        raise InputError(f"the recipe has no term {term}", field=f"{field}.term")
    low = _number(data["low"], f"{field}.low")
    high = _number(data["high"], f"{field}.high")
    if low > high:
        raise InputError(f"expected low ≤ high, found {low} and {high}", field=field)
    values = tuple(_number(one, f"{field}.values") for one in data["values"])
    return Variable(data["label"], parameter, term, values, low, high, data["layers"])


def _objective(data: Any, suite: Mapping[str, Any]) -> Objective:
    expect_keys(data, "objective", required=("kind", "weights", "lower_is_better"))
    kind = _one_of(data["kind"], OBJECTIVES, "objective.kind")
    lower, weights = data["lower_is_better"], data["weights"]
    tasks = tuple(
        Task(task["name"], kind_of(task), task["name"] not in lower) for task in suite["tasks"]
    )
    if {task.name for task in tasks} != weights.keys() or not any(weights.values()):
        why = "expected a weight for every task, one of them above 0"
        raise InputError(why, field="objective.weights")
    for name, weight in weights.items():
        _number(weight, f"objective.weights.{name}", 0.0)
    return Objective(kind, tasks, weights)


def _seed(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise InputError(f"expected a whole number from 0, found {value!r}", field="seed")
    return value


def _one_of(value: Any, known: tuple[str, ...], field: str) -> str:
    if value not in known:
        raise InputError(f"expected one of {', '.join(known)}, found {value!r}", field=field)
    return str(value)


def _number(value: Any, field: str, least: float = -math.inf, most: float = math.inf) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
        raise InputError(f"expected a number, found {value!r}", field=field)
    return float(value)
