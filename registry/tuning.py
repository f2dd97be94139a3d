"""What `tune:` of a merge declares, with every default: what is varied, by what it is judged. Pure.

Where a spec says nothing, the ranges are those that the field recommends for its method; they stand
beside the method's parameters in the merge schema, as `x-tune`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import schemas
from registry.schema import default_of
from registry.spec import MergeSpec, Range, Suite, Tune
from schemas.utility import MEASURED, PERPLEXITY, kind_of

_FIELDS = ("strategy", "objective", "sigma", "held_out", "seed")


def parse(data: Mapping[str, Any]) -> Tune:
    """Return the `tune` of a merge spec; the schema has checked it."""
    plain = {name: data.get(name, default_of("merge", ("tune", name))) for name in _FIELDS}
    budget = data.get("budget", {})
    default = default_of("merge", ("tune", "budget", "evaluations"))
    return Tune(
        **plain,
        suite=data.get("suite"),
        tasks=data.get("tasks", {}),
        parameters=_ranges(data.get("parameters", {})),
        weights=_ranges(data.get("weights", {})),
        compare=tuple(data.get("compare", ())),
        population=data.get("population"),
        evaluations=budget.get("evaluations", default),
        minutes=budget.get("minutes"),
    )


def _ranges(data: Mapping[str, Any]) -> dict[str, Range]:
    return {name: parse_range(one) for name, one in data.items()}


def parse_range(data: Sequence[float] | Mapping[str, Any]) -> Range:
    """Return a range: a list of values, or bounds with a number of steps or of layers."""
    if not isinstance(data, Mapping):
        return Range(tuple(float(one) for one in data), float(min(data)), float(max(data)))
    low, high = float(data["from"]), float(data["to"])
    steps = data.get("steps", default_of_range("steps"))
    width = (high - low) / max(1, steps - 1)
    # Rounded, so that 0.1 + 2 * 0.1 is written as 0.3; the ends are as declared.
    inner = [round(low + width * step, 6) for step in range(1, steps - 1)]
    return Range((low, *inner, high), low, high, data.get("layers", 0))


def default_of_range(name: str) -> int:
    """Return the default of a field of a range."""
    default: int = schemas.load("merge")["$defs"]["range"]["else"]["properties"][name]["default"]
    return default


def effective(spec: MergeSpec) -> Tune:
    """Return what is tuned of a merge: as declared, or what is recommended for its method."""
    tune = spec.tune or parse({})
    if tune.parameters or tune.weights:
        return tune
    known = schemas.method(spec.method)["properties"]
    recommended = {
        name: parse_range(one["x-tune"]) for name, one in known.items() if "x-tune" in one
    }
    weights = {}
    if tune.strategy == "greedy_soup":
        recommended = {}
        weights = {term.name: Range((1.0, 0.0), 0.0, 1.0) for term in spec.terms}
    return tune.over(recommended, weights)


def counted(suite: Suite, tune: Tune) -> dict[str, float]:
    """Return the tasks that candidates are asked, in the suite's order, with their weights.

    What a clock measures is not asked: it says how fast this machine is, not how good numbers are.
    """
    names = [str(task["name"]) for task in suite.tasks if task["metric"] not in MEASURED]
    given = tune.tasks or dict.fromkeys(names, 1.0)
    return {name: float(given[name]) for name in names if name in given}


def to_compare(spec: MergeSpec, suite: Suite) -> Tune:
    """Return what recipes that are only set beside each other are judged by; nothing is varied.

    The tasks that are asked count once each, but likelihoods only where there is nothing else: a
    search may go by them, a rank goes by right answers.
    """
    tune = spec.tune or parse({})
    asked = counted(suite, tune)
    kinds = {str(task["name"]): kind_of(task) for task in suite.tasks}
    answered = [name for name in asked if kinds[name] != PERPLEXITY] or list(asked)
    tasks = {name: float(name in answered) for name in asked}
    return replace(tune, tasks=tasks, parameters={}, weights={}, compare=(), held_out=0.0, seed=0)


def grid_size(tune: Tune) -> int:
    """Return how many combinations of values there are."""
    ranges = (*tune.parameters.values(), *tune.weights.values())
    return math.prod(len(one.values) for one in ranges)


def term_of(spec: MergeSpec, name: str) -> int | None:
    """Return the position of the one term of this name, None if there is none or several.

    A name is that of the operand, `sql`, or with its version, `sql@1`.
    """
    found = [
        number
        for number, term in enumerate(spec.terms)
        if name in (term.name, f"{term.name}@{term.version}")
    ]
    return found[0] if len(found) == 1 else None
