"""The search request of a tuned merge: everything that decides its candidates. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import schemas
from registry import tuning
from registry.record import input_label
from registry.request import alone, is_adapter, output
from registry.schema import method_parameters
from registry.spec import Catalog, MergeSpec, Range, Tune
from schemas import canonical
from schemas.expression import mean_weight

FORMAT_VERSION = 1

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A number that is varied: its name in tables, its place in the spec, and in the request."""

    label: str
    place: Path_
    parameter: str | None
    term: int | None
    range: Range

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of a search request."""
        return {
            "label": self.label,
            "parameter": self.parameter,
            "term": self.term,
            "values": list(self.range.values),
            "low": self.range.low,
            "high": self.range.high,
            "layers": self.range.layers,
        }


def variables(spec: MergeSpec, tune: Tune, pinned: Mapping[str, Any]) -> tuple[Variable, ...]:
    """Return what is varied, parameters first, each in the order of the spec."""
    terms = pinned["recipe"]["terms"]
    found = [
        Variable(name, ("recipe", "parameters", name), name, None, one)
        for name, one in tune.parameters.items()
    ]
    for name, one in tune.weights.items():
        position = tuning.term_of(spec, name)
        assert position is not None, "the catalog was checked"
        place = (*spec.place(position), "weight")
        in_request = _position(terms, spec.terms[position].label)
        found.append(Variable(f"weight of {name}", place, None, in_request, one))
    return tuple(found)


def _position(terms: Sequence[Mapping[str, Any]], label: str) -> int:
    # A request has its terms in the order of their digests.
    return next(number for number, one in enumerate(terms) if input_label(one["input"]) == label)


def search_request(
    catalog: Catalog,
    spec: MergeSpec,
    tune: Tune,
    pinned: Mapping[str, Any],
    varied: Sequence[Variable],
) -> dict[str, Any]:
    """Return the search request of a merge, whose build request `pinned` has every digest."""
    name = tune.suite or spec.suite
    assert name is not None, "the catalog was checked"
    suite = catalog.suites[name]
    start = as_model(pinned)
    weights = tuning.counted(suite, tune)
    asked = [task for task in suite.tasks if task["name"] in weights]
    return {
        "format_version": FORMAT_VERSION,
        "evaluator": schemas.evaluator(),
        "start": start,
        "suite": {"name": suite.name, "digest": suite.digest, "tasks": asked},
        "references": [{"label": "base", "request": None}, *_alone(start)],
        "trials": [
            {"label": method, "request": with_method(start, method)} for method in tune.compare
        ],
        "variables": [one.as_data() for one in varied],
        "strategy": {"name": tune.strategy, "population": tune.population, "sigma": tune.sigma},
        "objective": {
            "kind": tune.objective,
            "weights": weights,
            "lower_is_better": sorted(suite.lower_is_better & weights.keys()),
        },
        "held_out": tune.held_out,
        "seed": tune.seed,
    }


def as_model(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request of the same recipe whose result is a model: candidates are tried as such."""
    if is_adapter(request):
        # Not rounded on write, as the factors of an adapter are not.
        return {**request, "output": output({"dtype": "float32"})}
    return dict(request)


def _alone(start: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every ingredient of positive weight alone, at weight 1."""
    for position, term in enumerate(start["recipe"]["terms"]):
        if mean_weight(term["weight"]) > 0:
            label = f"{input_label(term['input'])} alone"
            yield {"label": label, "request": alone(start, position)}


def with_method(start: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return the request of the same operands under another method, with defaults and weights 1."""
    recipe, schema = start["recipe"], schemas.method(method)
    terms = [{**term, "weight": 1.0, "parameters": {}} for term in recipe["terms"]]
    if schema["x-symmetric"]:
        terms.sort(key=lambda term: (term["input"]["digest"], canonical.canonical(term)))
    changed = {
        "method": method,
        "parameters": method_parameters(method, {}),
        "terms": terms,
        "compute": recipe["compute"],
    }
    if schema["x-seed"]:
        changed["seed"] = recipe.get("seed", 0)
    if "tokenizer" in recipe:
        changed["tokenizer"] = recipe["tokenizer"]
    return {**start, "recipe": changed}
