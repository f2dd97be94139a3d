"""One merge that is being translated: what a method's translation asks, and where it complains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.documents import Path_
from registry.mergekit.models import Operand
from registry.mergekit.reading import Config, Findings, Input, Reference
from registry.mergekit.settings import Settings
from schemas.schedule import Scheduled, numbers_of

Term = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Method, parameters and terms (or the slices of a stack) as a merge spec has them."""

    method: str
    parameters: Mapping[str, Any]
    terms: tuple[Term, ...]
    slices: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Merge:
    """A file with its operands found; an operand is None where a problem stands already.

    `padding` are the rows of the base's vocabulary behind its last token, None if not known.
    """

    config: Config
    settings: Settings
    operands: Mapping[Reference, Operand | None]
    base: str | None
    padding: int | None

    @property
    def findings(self) -> Findings:
        """Where problems and notes go."""
        return self.settings.findings

    @property
    def models(self) -> tuple[Input, ...]:
        """The inputs that are not mergekit's base model."""
        return self.config.non_base

    def is_catalog_base(self, one: Input) -> bool:
        """Return whether an input is the base of the spec, which is no term."""
        operand = self.operands[one.reference]
        return operand is not None and operand.kind == "base"

    def number(self, name: str, default: Any) -> Scheduled | None:
        """Return a parameter that all inputs share."""
        place = self.config.shared[-1].path if self.config.shared else ()
        return self.settings.number(self.config.shared, name, default, place or ("merge_method",))

    def each(
        self, inputs: Sequence[Input], name: str, default: Any
    ) -> tuple[Scheduled | None, ...]:
        """Return a parameter of every input: its own levels first, then the shared ones."""
        return tuple(
            self.settings.number((*one.scopes, *self.config.shared), name, default, one.path)
            for one in inputs
        )

    def constant(self, name: str, *, default: Any, kind: type) -> Any:
        """Return a shared parameter that is one value for all tensors."""
        return self.settings.constant(self.config.shared, name, default=default, kind=kind)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a shared parameter that is true or false."""
        return bool(self.constant(name, default=default, kind=bool))

    def place(self, name: str, one: Input | None = None) -> Path_:
        """Return where a parameter (of an input) stands, or the method's place."""
        for scope in (*(one.scopes if one else ()), *self.config.shared):
            if name in scope.settings:
                return (*scope.path, name)
        return ("merge_method",)

    def unused(self, name: str, why: str) -> None:
        """Note a parameter that mergekit does not use, if it is there."""
        scopes: Iterable[Any] = (
            *self.config.shared,
            *(s for i in self.config.inputs for s in i.scopes),
        )
        if any(name in scope.settings for scope in scopes):
            self.findings.note(why)

    def require_base(self) -> None:
        """Refuse a base model that is not the spec's base: task vectors are taken from that."""
        config = self.config
        if config.base is None:
            self.findings.problem(("merge_method",), f"{config.method} needs base_model")
            return
        operand = self.operands[config.base]
        if operand is not None and operand.kind != "base":
            message = f"expected a base of the catalog, found {operand.text}"
            hint = f"task vectors are taken from the base: --map {config.base.text}=base:NAME"
            self.findings.problem(config.base_path, message, hint)

    def refuse_negative(
        self, weights: Sequence[Scheduled | None], inputs: Sequence[Input], why: str, hint: str = ""
    ) -> bool:
        """Take a problem for every negative weight; return whether there was none."""
        is_fine = True
        for weight, one in zip(weights, inputs, strict=True):
            lowest = 0.0 if weight is None else min(numbers_of(weight))
            if lowest < 0:
                is_fine = False
                message = f"{why}: found the weight {lowest:g}"
                self.findings.problem(self.place("weight", one), message, hint)
        return is_fine

    def terms(
        self,
        inputs: Sequence[Input],
        weights: Sequence[Scheduled | None] | None = None,
        parameters: Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[Term, ...]:
        """Return the terms of a recipe, in the order of the inputs."""
        terms = []
        for number, one in enumerate(inputs):
            operand = self.operands[one.reference]
            term = operand.as_term() if operand else {}
            if weights is not None:
                term["weight"] = weights[number]
            if parameters is not None and parameters[number]:
                term["parameters"] = dict(parameters[number])
            terms.append(term)
        return tuple(terms)
