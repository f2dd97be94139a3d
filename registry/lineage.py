"""What contains what: models and their ingredients as a graph, with weights, at any depth. Pure.

Knows build requests and model digests, not where they were read; says nothing in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import schemas
from registry.spec import IngredientId, label
from schemas.expression import expression
from schemas.schedule import Scheduled, numbers_of

Request = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """Build requests by model, and the model digests of what is built; none if only declared.

    `older` are requests of earlier builds by model digest: a model keeps what it was built of while
    that is built anew. `revoked` are reasons by ingredient; the records of `unread` models are
    unreadable.
    """

    requests: Mapping[str, Request]
    digests: Mapping[str, str] = field(default_factory=dict)
    older: Mapping[str, Request] = field(default_factory=dict)
    revoked: Mapping[IngredientId, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def request_of(self, name: str, digest: str) -> Request | None:
        """Return what a merge is made of, None if that is not known; no digest: as declared."""
        if self.digests.get(name, "") == digest:
            return self.requests.get(name)
        return self.older.get(digest)


@dataclass(frozen=True, slots=True)
class Node:
    """A model, or an ingredient. The same thing with other bytes is another node.

    `factor` is the lambda of a merge. `is_older` marks a build of a merge that is not its live one,
    `is_open` a merge of which nobody knows any more what it is made of.
    """

    kind: str
    name: str
    version: int | None = None
    digest: str = ""
    expression: str = field(default="", compare=False)
    factor: Scheduled = field(default=1, compare=False)
    revoked: str = field(default="", compare=False)
    is_older: bool = field(default=False, compare=False)
    is_open: bool = field(default=False, compare=False)

    @property
    def id(self) -> IngredientId:
        """Kind, name and version, whatever the bytes."""
        return (self.kind, self.name, self.version)

    @property
    def label(self) -> str:
        """How texts name it: `adapter sql@1`."""
        return label(*self.id)

    @property
    def short(self) -> str:
        """Its name without the kind: `sql@1`."""
        return self.name if self.version is None else f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Edge:
    """A part of a merge with its weight; None for the base and where the method has no weights.

    `note` is what a drawing adds to the weight.
    """

    part: Node
    whole: Node
    weight: Scheduled | None = None
    note: str = ""

    @property
    def sign(self) -> str:
        """`+`, `-`, `±` where a schedule changes sign, `0` for nothing; lambda counts too."""
        own = "+" if self.weight is None else sign_of(self.weight)
        return times(own, sign_of(self.whole.factor))

    @property
    def is_negative(self) -> bool:
        """Whether the part is taken away."""
        return self.part.kind != "base" and self.sign == "-"


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes, parts before what they are part of, and the edges between them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def parts(self) -> dict[Node, list[Edge]]:
        """Return the edges to the parts of each node, in the order of its recipe."""
        found: dict[Node, list[Edge]] = {node: [] for node in self.nodes}
        for edge in self.edges:
            found[edge.whole].append(edge)
        return found

    def above(self, part: Node) -> set[Node]:
        """Return the nodes that contain a node at any depth, and the node itself."""
        found = {part}
        # Parts come before wholes and edges stand with their whole, so one pass is enough.
        for edge in self.edges:
            if edge.part in found:
                found.add(edge.whole)
        return found


def sign_of(weight: Scheduled) -> str:
    """Return `+`, `-`, `0`, or `±` for a schedule that adds here and subtracts there."""
    numbers = numbers_of(weight)
    signs = {"+" if number > 0 else "-" for number in numbers if number}
    return "±" if len(signs) > 1 else next(iter(signs), "0")


def times(one: str, other: str) -> str:
    """Return the sign of a product: what subtracts a subtraction adds."""
    if "0" in (one, other):
        return "0"
    if "±" in (one, other):
        return "±"
    return "+" if one == other else "-"


def either(one: str, other: str) -> str:
    """Return the sign that two ways to the same thing have together, `±` if they differ."""
    if other in (one, "0"):
        return one
    return other if one == "0" else "±"


def ingredients(model: str, known: Known) -> Graph:
    """Return a model, the last node, with all that it is made of."""
    growing = _Growing(known)
    growing.add(model, known.digests.get(model, ""))
    return growing.graph()


def everything(known: Known) -> Graph:
    """Return all models with all that they are made of."""
    growing = _Growing(known)
    for model in sorted(known.requests):
        growing.add(model, known.digests.get(model, ""))
    return growing.graph()


class _Growing:
    """A graph while it is made; merges whose parts are not all there yet are open."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._nodes: dict[Node, Node] = {}
        self._edges: list[Edge] = []
        self._open: set[Node] = set()

    def graph(self) -> Graph:
        return Graph(tuple(self._nodes.values()), tuple(self._edges))

    def add(self, name: str, digest: str) -> None:
        """Add a merge after its parts; without recursion, as merges may be nested deeply."""
        todo = [Node("merge", name, digest=digest)]
        while todo:
            node = todo[-1]
            request = self._known.request_of(node.name, node.digest)
            if node in self._nodes:
                todo.pop()
            elif node in self._open:
                self._finish(node, request)
            else:
                self._open.add(node)
                inner = _merges_in(request) if request else []
                new = [one for one in inner if one not in self._nodes and one not in self._open]
                todo += reversed(new)

    def _finish(self, node: Node, request: Request | None) -> None:
        whole = self._merge(node, request)
        if request is not None:
            # Only a forged record can make a merge a part of itself; that edge is left out.
            self._edges += [e for e in self._parts(whole, request) if e.part not in self._open]
        self._open.remove(node)
        self._nodes[node] = whole

    def _merge(self, node: Node, request: Request | None) -> Node:
        is_older = self._known.digests.get(node.name, "") != node.digest
        if request is None:
            return replace(node, is_older=is_older, is_open=True)
        recipe = request["recipe"]
        line = expression(request["base"]["name"], recipe)
        factor = recipe["parameters"].get("lambda", 1)
        return replace(node, expression=line, factor=factor, is_older=is_older)

    def _parts(self, whole: Node, request: Request) -> Iterator[Edge]:
        yield Edge(self._part(request["base"]), whole)
        recipe = request["recipe"]
        has_weights = schemas.methods().get(recipe["method"], {}).get("x-weights", True)
        for term in recipe["terms"]:
            yield Edge(self._part(term["input"]), whole, term["weight"] if has_weights else None)

    def _part(self, source: Mapping[str, Any]) -> Node:
        name, version = source["name"], source.get("version")
        node = Node(source["kind"], name, version, source.get("digest", ""))
        if node.kind == "merge":
            return self._nodes.get(node, node)
        revoked = self._known.revoked.get(node.id, "")
        return self._nodes.setdefault(node, replace(node, revoked=revoked))


def _merges_in(request: Request) -> list[Node]:
    inputs = [term["input"] for term in request["recipe"]["terms"]]
    merges = [one for one in inputs if one["kind"] == "merge"]
    return [Node("merge", one["name"], digest=one.get("digest", "")) for one in merges]
