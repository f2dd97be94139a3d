"""What contains what: a model's ingredients, with sign and weight, at any depth. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.record import input_label
from schemas.expression import expression, mean_weight
from schemas.schedule import Scheduled


@dataclass(frozen=True, slots=True)
class Node:
    """One ingredient of a model, or the model itself. `weight` is None for the model and its base.

    `expression` and `terms` are empty for what is not a merge.
    """

    kind: str
    name: str
    version: int | None
    digest: str
    weight: Scheduled | None = None
    expression: str = ""
    terms: tuple[Node, ...] = ()

    @property
    def label(self) -> str:
        """How texts name it: `adapter sql@1`."""
        return input_label({"kind": self.kind, "name": self.name, "version": self.version})

    @property
    def is_negative(self) -> bool:
        """Whether it is subtracted from what it is a term of."""
        return self.weight is not None and mean_weight(self.weight) < 0

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of `lineage --format json`."""
        data: dict[str, Any] = {"kind": self.kind, "name": self.name, "digest": self.digest}
        if self.version is not None:
            data["version"] = self.version
        if self.weight is not None:
            data["weight"] = self.weight
        if self.expression:
            data["expression"] = self.expression
            data["ingredients"] = [term.as_data() for term in self.terms]
        return data


def ingredients(
    model: str, requests: Mapping[str, Mapping[str, Any]], digests: Mapping[str, str]
) -> Node:
    """Return a model with all that it is made of; its base comes first at each level.

    `requests` are build requests by model, `digests` model digests where they are known.
    """
    request = requests[model]
    base = request["base"]
    terms = [Node("base", base["name"], None, base["digest"])]
    for term in request["recipe"]["terms"]:
        source = term["input"]
        if source["kind"] == "merge" and source["name"] in requests:
            inner = ingredients(source["name"], requests, digests)
            terms.append(_weighted(inner, term["weight"], source.get("digest", "")))
        else:
            digest = source.get("digest", "")
            version = source.get("version")
            terms.append(Node(source["kind"], source["name"], version, digest, term["weight"]))
    line = expression(base["name"], request["recipe"])
    return Node("merge", model, None, digests.get(model, ""), None, line, tuple(terms))


def _weighted(node: Node, weight: Scheduled, digest: str) -> Node:
    return Node(node.kind, node.name, None, digest, weight, node.expression, node.terms)


def deeper(node: Node) -> Iterator[tuple[Node, str]]:
    """Yield what is inside the merges that a model is made of, each with the path to it.

    The model's own terms are left out; the base is named once, by the model itself.
    """
    for term in node.terms:
        for inner in term.terms:
            if inner.kind != "base":
                yield inner, f"{term.name} > {_short(inner)}"
        for inner, path in deeper(term):
            yield inner, f"{term.name} > {path}"


def _short(node: Node) -> str:
    return node.name if node.version is None else f"{node.name}@{node.version}"
