"""The search request of a tuned merge: everything that decides its candidates. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import schemas
from registry import trials, tuning
from registry.record import input_label
from registry.request import alone, is_adapter, output
from registry.spec import Catalog, MergeSpec, Range, Suite, Tune
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
    beside: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the search request of a merge, whose build request `pinned` has every digest.

    `beside` are recipes that are measured too; with nothing varied nothing is searched.
    """
    suite = suite_of(catalog, spec, tune)
    start = as_model(pinned)
    weights = tuning.counted(suite, tune)
    asked = [task for task in suite.tasks if task["name"] in weights]
    return {
        "format_version": FORMAT_VERSION,
        "evaluator": schemas.evaluator(),
        "start": start,
        "suite": {"name": suite.name, "digest": suite.digest, "tasks": asked},
        "references": [{"label": "base", "request": None}, *_alone(spec, start)],
        "trials": [*trials.rank(start, tune.compare), *beside],
        "variables": [one.as_data() for one in varied],
        "strategy": {
            "name": tune.strategy if varied else "none",
            "population": tune.population,
            "sigma": tune.sigma,
        },
        "objective": {
            "kind": tune.objective,
            "weights": weights,
            "lower_is_better": sorted(suite.lower_is_better & weights.keys()),
        },
        "held_out": tune.held_out,
        "seed": tune.seed,
    }


def suite_of(catalog: Catalog, spec: MergeSpec, tune: Tune | None) -> Suite:
    """Return the suite that recipes of a merge are measured on."""
    name = (tune and tune.suite) or spec.suite
    assert name is not None, "the catalog was checked"
    return catalog.suites[name]


def as_model(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request of the same recipe whose result is a model: candidates are tried as such."""
    if is_adapter(request):
        # Not rounded on write, as the factors of an adapter are not.
        return {**request, "output": output({"dtype": "float32"})}
    return dict(request)


def _alone(spec: MergeSpec, start: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every ingredient of positive weight alone, at weight 1, in the order of the spec."""
    terms = start["recipe"]["terms"]
    for term in spec.terms:
        position = _position(terms, term.label)
        if mean_weight(terms[position]["weight"]) > 0:
            yield {"label": f"{term.label} alone", "request": alone(start, position)}
