"""Paths of models in a mergekit file to operands of a catalog: by --map, else by equal names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from registry.documents import Path_
from registry.errors import UsageError, did_you_mean
from registry.mergekit.reading import Findings, Reference
from registry.spec import Catalog

_OPERAND = re.compile(
    r"(?P<kind>base|merge):(?P<name>[a-z0-9-]+)"
    r"|(?P<versioned>adapter|checkpoint):(?P<of>[a-z0-9-]+)@(?P<version>[1-9][0-9]*)"
)
_FORMS = "base:NAME, adapter:NAME@VERSION, checkpoint:NAME@VERSION or merge:NAME"


@dataclass(frozen=True, slots=True)
class Weights:
    """What is known of a base's weights: names of tensors, none if they are not at hand.

    `padding` are the rows of its vocabulary behind the last token, None if that is not known.
    """

    names: tuple[str, ...] = ()
    padding: int | None = None


@dataclass(frozen=True, slots=True)
class Operand:
    """A thing of the catalog that a path means."""

    kind: str
    name: str
    version: int | None = None

    @property
    def text(self) -> str:
        """As `--map` takes it."""
        return f"{self.kind}:{self.name}" + (f"@{self.version}" if self.version else "")

    def as_term(self) -> dict[str, Any]:
        """Return how a term of a recipe names it."""
        version = {"version": self.version} if self.version else {}
        return {self.kind: self.name, **version}


def parse_map(texts: Iterable[str], catalog: Catalog) -> dict[str, Operand]:
    """Return PATH=KIND:NAME@VERSION as path to operand. Raises UsageError."""
    found = {}
    known = set(_operands(catalog))
    for text in texts:
        path, _, written = text.rpartition("=")
        match = _OPERAND.fullmatch(written)
        if not path or match is None:
            msg = f"--map: expected PATH=… with {_FORMS}, found {text}"
            raise UsageError(msg)
        kind, name = match["kind"] or match["versioned"], match["name"] or match["of"]
        operand = Operand(kind, name, int(match["version"]) if match["version"] else None)
        if operand not in known:
            msg = f"--map: the catalog has no {written}"
            raise UsageError(msg, did_you_mean(written, [one.text for one in known]))
        found[path] = operand
    return found


@dataclass(frozen=True, slots=True)
class Maps:
    """What every path means: `given` by the command line, the rest by names of the catalog."""

    catalog: Catalog
    given: Mapping[str, Operand]

    def find(self, findings: Findings, reference: Reference, path: Path_) -> Operand | None:
        """Return what a reference means; None, with a problem, if that is not clear."""
        if not reference.lora:
            kinds = ("base", "checkpoint", "merge")
            return self._one(findings, reference.model, path, kinds)
        if reference.text in self.given:
            return self.given[reference.text]
        base = self._one(findings, reference.model, path, ("base", "checkpoint", "merge"))
        adapter = self._one(findings, reference.lora, path, ("adapter",))
        if base is None or adapter is None:
            return None
        under = self.base_of(adapter)
        if base != Operand("base", under):
            message = f"expected an adapter on {base.text}, found {adapter.text} on base:{under}"
            findings.problem(path, message, "an adapter is a task vector of its own base")
            return None
        return adapter

    def base_of(self, operand: Operand) -> str:
        """Return the name of the base that an operand belongs to."""
        if operand.kind == "base":
            return operand.name
        if operand.kind == "merge":
            return self.catalog.merges[operand.name].base
        one = self.catalog.ingredients[(operand.kind, operand.name, operand.version)]
        return str(one.base)

    def _one(
        self, findings: Findings, text: str, path: Path_, kinds: tuple[str, ...]
    ) -> Operand | None:
        if text in self.given:
            return self.given[text]
        name = _normal(text)
        known = [one for one in _operands(self.catalog) if one.kind in kinds]
        same = [one for one in known if one.name == name]
        if len(same) == 1:
            return same[0]
        if same:
            choices = " or ".join(one.text for one in same)
            message = f"{text} may be {choices}"
            findings.problem(path, message, f"choose: --map {text}={same[-1].text}")
            return None
        near = did_you_mean(name, [one.name for one in known]).removeprefix("did you mean ")
        likely = next((one.text for one in reversed(known) if one.name == near), None)
        if likely is None:
            wanted = "adapter:NAME@VERSION" if kinds == ("adapter",) else "checkpoint:NAME@VERSION"
            likely = wanted
        hint = f"--map {text}={likely}"
        findings.problem(path, f"the catalog has nothing of the name of {text}", hint)
        return None


def _operands(catalog: Catalog) -> list[Operand]:
    """Return everything of a catalog, in order of kind, name and version."""
    found = [Operand(one.kind, one.name, one.version) for one in catalog.ingredients.values()]
    found += [Operand("merge", name) for name in catalog.merges]
    return sorted(found, key=lambda one: (one.kind, one.name, one.version or 0))


def _normal(path: str) -> str:
    """Return the last component of a path as catalogs spell names."""
    last = path.rstrip("/").rsplit("/", 1)[-1].lower()
    return re.sub(r"[^a-z0-9]+", "-", last).strip("-")
