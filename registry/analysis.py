"""Ask a worker how terms agree, and what a merge leaves of each of them. Builds nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import schemas
from registry import evaluation, inputs
from registry.errors import RegistryError
from registry.record import input_label
from registry.request import Declaration
from registry.spec import Catalog, Ingredient
from registry.world import World
from schemas.expression import expression


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be looked at: the merge `model` with its pinned recipe, or operands alone."""

    model: str | None
    base: Mapping[str, Any]
    terms: tuple[Mapping[str, Any], ...]
    recipe: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """What the worker is busy with."""
        return self.model or ", ".join(input_label(term) for term in self.terms)


def of_merge(one: Declaration, digests: Mapping[str, str]) -> Question:
    """Return the question about a declared merge; `digests` are those of the published models.

    Raises RegistryError for a merge that it is made of and that was never built, and for a merge
    without terms.
    """
    for name in one.upstream:
        if name not in digests:
            msg = f"{one.model}: merge {name} is not built"
            raise RegistryError(msg, f"run `registry sync {name}`")
    request = one.pin(digests)
    recipe = request["recipe"]
    terms = tuple(term["input"] for term in recipe["terms"])
    if not terms:
        msg = f"{one.model}: expected a term to look at, found none"
        raise RegistryError(msg)
    return Question(one.model, request["base"], terms, recipe)


def of_operands(catalog: Catalog, operands: Sequence[Ingredient]) -> Question:
    """Return the question about adapters and checkpoints; RegistryError if their bases differ."""
    first = operands[0]
    for other in operands[1:]:
        if other.base != first.base:
            msg = (
                f"expected one base, found {first.base} of {first.label} "
                f"and {other.base} of {other.label}"
            )
            raise RegistryError(msg, "only changes of one base can be compared or added")
    assert first.base is not None
    base = catalog.base(first.base)
    pinned = {"kind": "base", "name": base.name, "digest": base.digest}
    terms = tuple(
        {"kind": one.kind, "name": one.name, "version": one.version, "digest": one.digest}
        for one in operands
    )
    return Question(None, pinned, terms)


def look(world: World, question: Question, *, density: float) -> dict[str, Any]:
    """Return the answer as plain data, as in the schema of an analysis.

    Raises BuildFailed and VerificationFailed as a build does.
    """
    scratch = world.store.staging()
    try:
        with world.turn:
            sources = [question.base, *question.terms]
            folders = inputs.folders_of(world, sources, scratch)
            world.observer.stage(question.title, "analyze")
            order = evaluation.order_for(world, "analyze", _request(question, density), folders)
            report = world.run(question.title, order)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _answer(question, report["analysis"])


def _request(question: Question, density: float) -> dict[str, Any]:
    return {
        "format_version": 1,
        "numerics": schemas.numerics(),
        "base": question.base,
        "terms": list(question.terms) if question.recipe is None else None,
        "recipe": question.recipe,
        "density": density,
    }


def _answer(question: Question, figures: Mapping[str, Any]) -> dict[str, Any]:
    base, recipe = question.base["name"], question.recipe
    weights: dict[str, Any] = {}
    if recipe is not None:
        weights = {input_label(term["input"]): term["weight"] for term in recipe["terms"]}
    return {
        "model": question.model,
        "base": base,
        "expression": None if recipe is None else expression(base, recipe),
        "operands": [{"operand": one, "weight": weights.get(one)} for one in figures["terms"]],
        "figures": dict(figures),
    }
