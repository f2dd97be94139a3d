"""What the schema cannot tell of `tune:`: names that are not there, senseless ranges. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import schemas
from registry import tuning
from registry.errors import Problem, did_you_mean
from registry.source import FieldPath, Source
from registry.spec import Catalog, MergeSpec, Range, Tune
from schemas.utility import MEASURED

_TUNE = "tune"


def check(catalog: Catalog, spec: MergeSpec, source: Source) -> Iterator[Problem]:
    """Yield what is wrong with the `tune` of a merge, if it has one."""
    tune = spec.tune
    if tune is None:
        return
    yield from _suite(catalog, spec, tune, source)
    yield from _parameters(spec, tune, source)
    yield from _weights(spec, tune, source)
    yield from _strategy(spec, tune, source)
    for number, name in enumerate(tune.compare):
        if name not in schemas.methods():
            hint = did_you_mean(name, schemas.methods())
            yield source.problem((_TUNE, "compare", number), f"no method {name}", hint)


def _suite(catalog: Catalog, spec: MergeSpec, tune: Tune, source: Source) -> Iterator[Problem]:
    name = tune.suite or spec.suite
    if name is None:
        message = "expected a suite to measure candidates on, found none"
        yield source.problem((_TUNE,), message, "add `suite:` here, or `evaluation:` to the merge")
        return
    suite = catalog.suites.get(name)
    if suite is None:
        if tune.suite:
            hint = did_you_mean(name, catalog.suites) or f"declare it in catalog/suites/{name}/"
            yield source.problem((_TUNE, "suite"), f"no suite {name}", hint)
        return
    known = [str(task["name"]) for task in suite.tasks]
    for task in tune.tasks:
        if task not in known:
            hint = did_you_mean(task, known) or f"tasks: {', '.join(known)}"
            yield source.problem((_TUNE, "tasks", task), f"suite {name} has no task {task}", hint)
        elif (metric := suite.metric(task)) in MEASURED:
            message = f"expected a task that a model's numbers decide, {metric} is measured"
            yield source.problem((_TUNE, "tasks", task), message, "remove it")
    if not any(tuning.counted(suite, tune).values()):
        message = "expected a task of weight above 0, found none"
        possible = [task for task in known if suite.metric(task) not in MEASURED]
        hint = f"tasks: {', '.join(possible) or 'none that a search can go by'}"
        yield source.problem((_TUNE, "tasks"), message, hint)


def _parameters(spec: MergeSpec, tune: Tune, source: Source) -> Iterator[Problem]:
    known = schemas.method(spec.method)["properties"]
    for name, one in tune.parameters.items():
        path: FieldPath = (_TUNE, "parameters", name)
        if name not in known or not _is_number(known[name]):
            numbers = [other for other in known if _is_number(known[other])]
            hint = did_you_mean(name, numbers) or f"numbers of it: {', '.join(numbers) or 'none'}"
            yield source.problem(path, f"{spec.method} has no number {name}", hint)
            continue
        yield from _range(one, known[name].get("x-range", {}), path, source)
        if one.layers and spec.parameters.get("scope") == "model" and "density" in name:
            message = f"expected one {name} with scope model, found layers"
            yield source.problem((*path, "layers"), message, "use scope: tensor")


def _is_number(schema: Mapping[str, Any]) -> bool:
    return "enum" not in schema and schema.get("type") not in ("boolean", "string")


def _weights(spec: MergeSpec, tune: Tune, source: Source) -> Iterator[Problem]:
    for name, one in tune.weights.items():
        path: FieldPath = (_TUNE, "weights", name)
        if tuning.term_of(spec, name) is None:
            known = [term.name for term in spec.terms]
            hint = did_you_mean(name, known) or f"terms: {', '.join(known)}"
            if known.count(name) > 1:
                hint = f"several are called {name}: write it with its version, {name}@1"
            yield source.problem(path, f"expected a term, found {name}", hint)
        elif not schemas.method(spec.method)["x-weights"]:
            yield source.problem(path, f"{spec.method} takes no weights", "vary its parameters")
        else:
            yield from _range(one, {}, path, source)


def _range(
    one: Range, limits: Mapping[str, float], path: FieldPath, source: Source
) -> Iterator[Problem]:
    if one.low > one.high or (one.low == one.high and len(one.values) > 1):
        message = f"expected from < to, found {one.low:g} and {one.high:g}"
        yield source.problem(path, message)
        return
    for value in (one.low, one.high):
        if not _is_within(value, limits):
            bounds = ", ".join(f"{name} {limit:g}" for name, limit in limits.items())
            yield source.problem(path, f"expected numbers with {bounds}, found {value:g}")
            return


def _is_within(value: float, limits: Mapping[str, float]) -> bool:
    return (
        value >= limits.get("minimum", value)
        and value <= limits.get("maximum", value)
        and value > limits.get("exclusiveMinimum", value - 1)
        and value < limits.get("exclusiveMaximum", value + 1)
    )


def _strategy(spec: MergeSpec, tune: Tune, source: Source) -> Iterator[Problem]:
    ranges = {
        **{("parameters", name): one for name, one in tune.parameters.items()},
        **{("weights", name): one for name, one in tune.weights.items()},
    }
    if tune.strategy == "greedy_soup":
        yield from _soup(spec, ranges, source)
        return
    for place, one in ranges.items():
        path: FieldPath = (_TUNE, *place)
        if tune.strategy == "grid" and one.layers:
            message = "expected one number in a grid, found layers"
            yield source.problem((*path, "layers"), message, "use strategy: cma_es")
        if tune.strategy == "cma_es" and one.low == one.high:
            message = "expected a range to search in, found one value"
            yield source.problem(path, message, "write {from: …, to: …}, or remove it")
    if not ranges and not tuning.effective(spec).parameters:
        message = f"expected something to vary: nothing is recommended for {spec.method}"
        hint = "add `weights:`, for example {sql: [0.3, 0.5, 0.7]}"
        yield source.problem((_TUNE,), message, hint)
    if tune.strategy == "grid" and (size := tuning.grid_size(tune)) > tune.evaluations:
        message = f"expected at most {tune.evaluations} combinations, found {size}"
        hint = "raise budget.evaluations, take fewer values, or use strategy: cma_es"
        yield source.problem((_TUNE,), message, hint)


def _soup(spec: MergeSpec, ranges: Iterable[FieldPath], source: Source) -> Iterator[Problem]:
    if spec.method != "linear":
        message = f"expected method linear for a soup, found {spec.method}"
        yield source.problem((_TUNE, "strategy"), message)
    for place in ranges:
        message = "a greedy soup takes an ingredient or leaves it: nothing else is varied"
        yield source.problem((_TUNE, *place), message, "remove it")
