"""Method parameters that must fit each other: ranges of probabilities, shares of one whole. Pure.

Schedules are checked number by number against one number; where both are schedules the merger
decides, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from registry.errors import Problem
from registry.schema import method_parameters
from registry.source import FieldPath, Source
from registry.spec import MergeSpec
from schemas.schedule import Scheduled, numbers_of


def check(spec: MergeSpec, source: Source) -> Iterator[Problem]:
    """Yield what is wrong between the parameters of a merge."""
    parameters = method_parameters(spec.method, spec.parameters)
    if "epsilon" in parameters:
        expected = "density - epsilon above 0 and density + epsilon at most 1"
        yield from _pairs(spec, source, parameters, "epsilon", _is_range, expected)
    if "gamma" in parameters:
        expected = "density + gamma at most 1"
        yield from _pairs(spec, source, parameters, "gamma", _is_share, expected)
    if parameters.get("min_terms", 0) > len(spec.terms):
        path: FieldPath = ("recipe", "parameters", "min_terms")
        message = f"expected at most the number of terms, {len(spec.terms)}"
        message += f", found {parameters['min_terms']}"
        yield source.problem(path, message, "no element can matter to more terms than there are")


def _is_range(density: float, epsilon: float) -> bool:
    return density - epsilon > 0 and density + epsilon <= 1


def _is_share(density: float, gamma: float) -> bool:
    return density + gamma <= 1


def _pairs(
    spec: MergeSpec,
    source: Source,
    parameters: Mapping[str, Any],
    name: str,
    fits: Callable[[float, float], bool],
    expected: str,
) -> Iterator[Problem]:
    other = parameters[name]
    for path, density in _densities(spec, parameters, name).items():
        if isinstance(density, Mapping) and isinstance(other, Mapping):
            continue
        for one, two in ((one, two) for one in numbers_of(density) for two in numbers_of(other)):
            if not fits(one, two):
                message = f"expected {expected}, found density {one:g} and {name} {two:g}"
                yield source.problem(path, message, f"lower {name}, or choose another density")
                break


def _densities(
    spec: MergeSpec, parameters: Mapping[str, Any], name: str
) -> dict[FieldPath, Scheduled]:
    """Return the densities that the terms have, by the place to mend."""
    found: dict[FieldPath, Scheduled] = {}
    for number, term in enumerate(spec.terms):
        if "density" in term.parameters:
            path: FieldPath = ("recipe", "terms", number, "parameters", "density")
            found[path] = term.parameters["density"]
        else:
            found["recipe", "parameters", name] = parameters["density"]
    return found
