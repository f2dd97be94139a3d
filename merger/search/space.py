"""What a search varies: numbers of a recipe, as points and as coordinates. Pure.

A *point* has one value per variable, a number or a schedule, and becomes a candidate by putting
them into the declared request. *Coordinates* are the same for methods that want real numbers in
[0, 1]: one per number of the point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from schemas.schedule import Scheduled, part_of

_DECIMALS = 4
"""Of what is proposed: a spec is read by people, and no model is known to tell 1e-5 apart."""

ENDS = ("embeddings", "head")
"""What a schedule has a number for besides the layers."""

Point = tuple[Scheduled, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A number of the recipe: a parameter, or the weight of a term.

    `values` are those that a grid tries; `low` and `high` bound it otherwise. With `layers` it is a
    schedule of so many points over the layers and of one number for each of `ends`.
    """

    label: str
    parameter: str | None
    term: int | None
    values: tuple[float, ...]
    low: float
    high: float
    layers: int = 0
    ends: tuple[str, ...] = ENDS

    @property
    def size(self) -> int:
        """How many coordinates it has."""
        return self.layers + len(self.ends) if self.layers else 1

    def value(self, coordinates: Sequence[float]) -> Scheduled:
        """Return the value at coordinates in [0, 1]."""
        span = self.high - self.low
        numbers = [round(self.low + span * float(one), _DECIMALS) for one in coordinates]
        if not self.layers:
            return numbers[0]
        ends = zip(self.ends, numbers[self.layers :], strict=True)
        return {"layers": numbers[: self.layers], **dict(ends)}

    def coordinates(self, value: Scheduled) -> list[float]:
        """Return the coordinates of a value, or of the nearest that the bounds allow."""
        if isinstance(value, Mapping):
            points = [float(one) for one in value["layers"]]
            mean = sum(points) / len(points)
            inner = points if len(points) == self.layers else [mean] * max(self.layers, 1)
            ends = [float(value.get(name, mean)) for name in self.ends]
            numbers = [*inner, *ends][: self.size]
        else:
            numbers = [float(value)] * self.size
        span = (self.high - self.low) or 1.0
        return [min(max((one - self.low) / span, 0.0), 1.0) for one in numbers]

    def found_in(self, request: Mapping[str, Any]) -> Scheduled:
        """Return its value in a build request."""
        recipe = request["recipe"]
        value: Scheduled = (
            recipe["parameters"][self.parameter]
            if self.term is None
            else recipe["terms"][self.term]["weight"]
        )
        return value


@dataclass(frozen=True, slots=True)
class Space:
    """All variables of a search, in their order."""

    variables: tuple[Variable, ...]

    def over(self, tensors: Sequence[Iterable[str]]) -> Space:
        """Return the space without numbers that change nothing; `tensors` are those of each term.

        A term that has none outside the layers needs no number for them. What is left counts: an
        evolution learns more slowly with every coordinate.
        """
        ends = [frozenset(map(part_of, names)) for names in tensors]
        every = frozenset[str]().union(*ends)

        def narrowed(one: Variable) -> Variable:
            parts = every if one.term is None else ends[one.term]
            return replace(one, ends=tuple(end for end in ENDS if end in parts))

        return Space(tuple(map(narrowed, self.variables)))

    def at(self, coordinates: Sequence[float]) -> Point:
        """Return the point at coordinates, those of the first variable first."""
        values, start = [], 0
        for variable in self.variables:
            values.append(variable.value(coordinates[start : start + variable.size]))
            start += variable.size
        return tuple(values)

    def coordinates(self, point: Point) -> list[float]:
        """Return the coordinates of a point."""
        pairs = zip(self.variables, point, strict=True)
        return [one for variable, value in pairs for one in variable.coordinates(value)]

    def found_in(self, request: Mapping[str, Any]) -> Point:
        """Return the point of a build request."""
        return tuple(variable.found_in(request) for variable in self.variables)

    def put(self, point: Point, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a build request with the values of a point."""
        recipe = request["recipe"]
        parameters = dict(recipe["parameters"])
        terms = [dict(term) for term in recipe["terms"]]
        for variable, value in zip(self.variables, point, strict=True):
            if variable.term is None:
                assert variable.parameter is not None
                parameters[variable.parameter] = value
            else:
                terms[variable.term]["weight"] = value
        return {**request, "recipe": {**recipe, "parameters": parameters, "terms": terms}}

    def are_neighbours(self, one: Point, other: Point) -> bool:
        """Return whether two points of a grid differ in one variable alone, by one of its steps."""
        steps = []
        for variable, a, b in zip(self.variables, one, other, strict=True):
            if a != b:
                values = sorted(set(variable.values))
                if a not in values or b not in values:
                    return False
                steps.append(abs(values.index(a) - values.index(b)))
        return steps == [1]
