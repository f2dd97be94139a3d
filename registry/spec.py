"""What a catalog declares, as frozen values: ingredients, merge specs, suites, settings.

Knows neither files nor places nor how anything is built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.schedule import Scheduled
from schemas.stack import Slice

IngredientId = tuple[str, str, int | None]
"""Kind, name and version (None for a base); unique in a catalog."""


def label(kind: str, name: str, version: int | None = None) -> str:
    """Return how texts name a thing: `adapter sql@1`, `merge general-coding`."""
    return f"{kind} {name}" if version is None else f"{kind} {name}@{version}"


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A base, an adapter or a checkpoint: given bytes, known by their digest.

    `origin` are free facts, of which nothing depends.
    """

    kind: str
    name: str
    version: int | None
    base: str | None
    digest: str
    folder: str
    description: str = ""
    recover: str = ""
    revoked: str = ""
    license: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def id(self) -> IngredientId:
        """Kind, name and version."""
        return (self.kind, self.name, self.version)

    @property
    def label(self) -> str:
        """How texts name it."""
        return label(self.kind, self.name, self.version)


@dataclass(frozen=True, slots=True)
class Term:
    """One operand of a recipe: what, with which weight."""

    kind: str
    name: str
    version: int | None
    weight: Scheduled
    parameters: Mapping[str, Scheduled]

    @property
    def id(self) -> IngredientId:
        """Kind, name and version (None for a merge)."""
        return (self.kind, self.name, self.version)

    @property
    def label(self) -> str:
        """How texts name it."""
        return label(self.kind, self.name, self.version)


@dataclass(frozen=True, slots=True)
class Gate:
    """Conditions that a task's metric must meet for the model to be published."""

    at_least: float | None = None
    at_most: float | None = None
    retention: float | None = None
    no_worse_than: str | None = None

    def as_data(self) -> dict[str, Any]:
        """Return the conditions that are set."""
        conditions = {
            "at_least": self.at_least,
            "at_most": self.at_most,
            "retention": self.retention,
            "no_worse_than": self.no_worse_than,
        }
        return {name: value for name, value in conditions.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Range:
    """Values of one number: those that a grid tries, and the bounds of any other search.

    With `layers` it is a schedule of so many points.
    """

    values: tuple[float, ...]
    low: float
    high: float
    layers: int = 0


@dataclass(frozen=True, slots=True)
class Tune:
    """How better numbers of a merge are looked for; no build depends on it.

    `parameters` and `weights` are what is varied, by name of parameter and term; `tasks` are the
    weights of the tasks to ask, all with 1 if empty; `compare` are methods to set beside it.
    """

    strategy: str
    objective: str
    sigma: float
    held_out: float
    seed: int
    suite: str | None
    tasks: Mapping[str, float]
    parameters: Mapping[str, Range]
    weights: Mapping[str, Range]
    compare: tuple[str, ...]
    population: int | None
    evaluations: int
    minutes: float | None

    def over(self, parameters: Mapping[str, Range], weights: Mapping[str, Range]) -> Tune:
        """Return the same search over other numbers."""
        return replace(self, parameters=parameters, weights=weights)


@dataclass(frozen=True, slots=True)
class MergeSpec:
    """A declared model; `slices` are those of passthrough, by the index of their term.

    The terms of passthrough are the operands of its slices, each once, in the order of their first
    use; `tokenizer` is whose vocabulary the model has, base or union. A
    dialect's parameters stand in `parameters` already.
    """

    name: str
    base: str
    method: str
    parameters: Mapping[str, Any]
    terms: tuple[Term, ...]
    seed: int
    compute: str
    output: Mapping[str, Any]
    tokenizer: str = "base"
    slices: tuple[Slice, ...] = ()
    suite: str | None = None
    gates: Mapping[str, Gate] = field(default_factory=dict)
    description: str = ""
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    suspend: str = ""
    dialect: str | None = None
    tune: Tune | None = None

    def place(self, term: int) -> tuple[str | int, ...]:
        """Return where a term stands in the file: among the terms, or as its first slice."""
        for number, one in enumerate(self.slices):
            if one.term == term:
                return ("recipe", "slices", number)
        return ("recipe", "terms", term)

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the merges that this one is made of."""
        return tuple(term.name for term in self.terms if term.kind == "merge")

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter is built instead of a model."""
        return bool(self.output.get("form") == "adapter")


@dataclass(frozen=True, slots=True)
class Suite:
    """What a model is evaluated on; `digest` covers tasks and data, not the description.

    Nor does it cover of which tasks less is better, `lower_is_better`, and how many `minutes` an
    evaluation may take: neither changes a number.
    """

    name: str
    folder: str
    tasks: tuple[Mapping[str, Any], ...]
    digest: str
    lower_is_better: frozenset[str] = frozenset()
    minutes: float | None = None

    def metric(self, task: str) -> str:
        """Return the metric of a task of this suite."""
        return next(str(one["metric"]) for one in self.tasks if one["name"] == task)


@dataclass(frozen=True, slots=True)
class Settings:
    """registry.yaml with its defaults."""

    name: str
    experiment: str = "merge-registry"
    remote: str | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that is declared, already cross-checked."""

    settings: Settings
    ingredients: Mapping[IngredientId, Ingredient]
    merges: Mapping[str, MergeSpec]
    suites: Mapping[str, Suite]

    def base(self, name: str) -> Ingredient:
        """Return a base by name."""
        return self.ingredients[("base", name, None)]

    def ordered(self) -> Iterator[MergeSpec]:
        """Yield the merges, each after all that it is made of; otherwise by name."""
        for name in in_order({name: spec.upstream for name, spec in self.merges.items()}):
            yield self.merges[name]


def in_order(upstream: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield the names of merges, each after all that it is made of; otherwise by name."""
    done: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name not in done:
            done.add(name)
            for other in sorted(upstream[name]):
                yield from visit(other)
            yield name

    for name in sorted(upstream):
        if upstream[name]:
            yield from visit(name)
        elif name not in done:
            done.add(name)
            yield name
