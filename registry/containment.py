"""How models contain something: every way down to it, with its sign and weight. Pure.

Knows the graph, not whether it is that of what is declared or of what is live.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from registry.lineage import Edge, Graph, Node, either, times
from schemas.expression import mean_weight

PATHS = 20
"""Ways that are told one by one; there may be exponentially many."""

Parts = Mapping[Node, Sequence[Edge]]


@dataclass(frozen=True, slots=True)
class Path:
    """One way from a model down to something inside it; the first edge is one of the model's."""

    edges: tuple[Edge, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names on the way, the model's own first."""
        return (self.edges[0].whole.short, *(edge.part.short for edge in self.edges))

    @property
    def sign(self) -> str:
        """The product of the signs on the way; nothing for a base."""
        sign = "+"
        for edge in self.edges:
            sign = times(sign, edge.sign)
        return "" if self.edges[-1].part.kind == "base" else sign

    @property
    def weight(self) -> float | None:
        """The product of weights and lambdas on the way, schedules by their mean.

        None for a base, and where the last step has no weight.
        """
        if self.edges[-1].weight is None:
            return None
        product = 1.0
        for edge in self.edges:
            product *= mean_weight(edge.whole.factor)
            product *= 1.0 if edge.weight is None else mean_weight(edge.weight)
        return product


@dataclass(frozen=True, slots=True)
class Containment:
    """How a model contains a part: the sign of all ways together, their number, the first ways."""

    part: Node
    sign: str
    count: int
    paths: tuple[Path, ...]


def containments(
    graph: Graph, part: Node, models: Collection[Node] | None = None
) -> dict[Node, Containment]:
    """Return every model, or those of `models`, that contain a part, with how.

    A base is named by each model itself, not once more by the merges that it is made of.
    """
    parts, above = graph.parts(), graph.above(part)
    if part.kind == "base":
        direct = [edge for edge in graph.edges if edge.part == part]
        found = {edge.whole: Containment(part, "", 1, (Path((edge,)),)) for edge in direct}
        return found if models is None else {one: found[one] for one in models if one in found}
    sums: dict[Node, tuple[str, int]] = {part: ("+", 1)}
    found = {}
    for whole in graph.nodes:
        if whole not in above or whole == part:
            continue
        sign, count = "0", 0
        for edge in parts[whole]:
            if edge.part in above:
                deeper, ways = sums[edge.part]
                sign = either(sign, times(edge.sign, deeper))
                count += ways
        sums[whole] = sign, count
        if models is not None and whole not in models:
            continue
        paths = tuple(map(Path, islice(_ways(whole, part, parts, above), PATHS)))
        found[whole] = Containment(part, sign, count, paths)
    return found


def _ways(
    whole: Node, part: Node, parts: Parts, above: Collection[Node]
) -> Iterator[tuple[Edge, ...]]:
    for edge in parts[whole]:
        if edge.part == part:
            yield (edge,)
        elif edge.part in above:
            for way in _ways(edge.part, part, parts, above):
                yield (edge, *way)


def contents(graph: Graph) -> list[Containment]:
    """Return all that the last node of a graph contains: the base, then what is nearest first."""
    model = graph.nodes[-1]
    inside = [containments(graph, node, {model}) for node in graph.nodes[:-1]]
    # The base of a merge inside may be none of the model's own, and is not told then.
    return sorted((one[model] for one in inside if one), key=_nearest)


def _nearest(one: Containment) -> tuple[bool, int, str, str, int]:
    part = one.part
    depth = min(len(path.edges) for path in one.paths)
    return part.kind != "base", depth, part.kind, part.name, part.version or 0
