"""Which models contain an ingredient, at any depth: live, as declared, or both. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from registry.containment import Containment, Parts, Path, containments, facts, has_way
from registry.errors import UsageError, did_you_mean
from registry.lineage import Edge, Graph, Known, Node, either, everything
from registry.spec import IngredientId

KINDS = ("base", "adapter", "checkpoint", "merge")
"""What a model can contain."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way from a model down to the ingredient; `where` is both, live or declared."""

    path: Path
    where: str


@dataclass(frozen=True, slots=True)
class Use:
    """A model that contains the ingredient.

    `live` and `declared` are the signs of all ways together, None where it is not contained;
    `digest` is that of the live build that contains it, and `more` ways are not told one by one.
    """

    model: str
    live: str | None
    declared: str | None
    digest: str
    ways: tuple[Way, ...]
    more: int = 0

    @property
    def where(self) -> str:
        """Whether what is live contains it, what is declared, or both."""
        if self.live is None:
            return "declared"
        return "live" if self.declared is None else "both"


@dataclass(frozen=True, slots=True)
class Impact:
    """An ingredient and the models that contain it, nearest first."""

    node: Node
    uses: tuple[Use, ...]
    graph: Graph


@dataclass(frozen=True, slots=True)
class Spread:
    """An ingredient and the number of models that contain it at any depth: live, and declared."""

    node: Node
    live: int
    declared: int


@dataclass(frozen=True, slots=True)
class Open:
    """A live model of which it cannot be told what it contains.

    `part` is a build of a merge in it that nobody knows any more; None if no record can be read.
    """

    model: str
    part: Node | None = None


@dataclass(frozen=True, slots=True)
class World:
    """All models, live and as declared."""

    live: Graph
    declared: Graph
    unread: tuple[str, ...] = ()


def look(live: Known, declared: Known) -> World:
    """Return the graphs of all that is live and of all that is declared."""
    return World(everything(live), everything(declared), live.unread)


def find(kind: str, reference: str, world: World, others: Iterable[Node] = ()) -> list[Node]:
    """Return what `sql@1` names, or every version of `sql`; `others` are in no model.

    Raises UsageError with the nearest name for what does not exist.
    """
    known = {one.id[1:]: one for one in _all(world, others) if one.kind == kind}
    name, _, version = reference.partition("@")
    versions = sorted((one for one in known if one[0] == name), key=lambda one: one[1] or 0)
    found = [one for one in versions if not version or str(one[1]) == version]
    if found:
        return [known[one] for one in found]
    if versions:
        msg = f"no {kind} {reference}, but {', '.join(known[one].label for one in versions)}"
        raise UsageError(msg)
    msg = f"no {kind} {reference}"
    raise UsageError(msg, did_you_mean(name, {one for one, _ in known}))


def _all(world: World, others: Iterable[Node]) -> Iterable[Node]:
    """Return one node for each thing that has a name, `others` included."""
    nodes = (*others, *world.declared.nodes, *world.live.nodes)
    # An earlier build stands for a merge only where nothing else does: what is live comes last.
    known = {node.id: node for node in sorted(nodes, key=lambda one: not one.is_older)}
    return known.values()


def spread(world: World, others: Iterable[Node] = ()) -> list[Spread]:
    """Return every ingredient that is no merge, by kind, name and version; `others` too."""
    live, declared = _holders(world.live), _holders(world.declared)
    nodes = [node for node in _all(world, others) if node.kind != "merge"]
    nodes.sort(key=lambda one: (KINDS.index(one.kind), one.name, one.version or 0))
    return [Spread(node, live[node.id], declared[node.id]) for node in nodes]


def _holders(graph: Graph) -> Counter[IngredientId]:
    """Return by ingredient how many models contain it; builds that are not live are no models."""
    held: dict[Node, set[IngredientId]] = {node: set() for node in graph.nodes}
    # Parts come before wholes and edges stand with their whole, so one pass is enough.
    for edge in graph.edges:
        held[edge.whole] |= {edge.part.id, *held[edge.part]}
    models = [whole for whole in graph.nodes if not whole.is_older]
    pairs = {(part, model.name) for model in models for part in held[model]}
    return Counter(part for part, _ in pairs)


def impact(node: Node, world: World) -> Impact:
    """Return the models that contain a node, whatever its bytes."""
    live = _Side(world.live.parts(), _containments(world.live, node))
    declared = _Side(world.declared.parts(), _containments(world.declared, node))
    models = {*live.found, *declared.found}
    uses = sorted((_use(model, live, declared) for model in models), key=_near)
    return Impact(node, tuple(uses), _drawn(node, world))


def unknown(world: World) -> list[Open]:
    """Return the live models of which it cannot be told what all they contain."""
    found = [Open(model) for model in world.unread]
    for node in world.live.nodes:
        if node.is_open:
            above = world.live.above(node)
            models = sorted(one.name for one in above if one != node and not one.is_older)
            found += [Open(model, node) for model in models]
    return found


def _containments(graph: Graph, target: Node) -> dict[str, list[tuple[Node, Containment]]]:
    """Return by model how it contains the target; builds that are not live are no models."""
    found: dict[str, list[tuple[Node, Containment]]] = {}
    for part in graph.nodes:
        if part.id == target.id:
            for whole, one in containments(graph, part).items():
                if not whole.is_older:
                    found.setdefault(whole.name, []).append((whole, one))
    return found


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two graphs, and how its models contain what is asked for."""

    parts: Parts
    found: Mapping[str, Sequence[tuple[Node, Containment]]]

    def paths(self, model: str) -> list[Path]:
        return [path for _, one in self.found.get(model, ()) for path in one.paths]

    def has(self, model: str, path: Path) -> bool:
        # Not all ways are told, so that one is not among them says nothing.
        return has_way(self.parts, {whole for whole, _ in self.found.get(model, ())}, path)

    def count(self, model: str) -> int:
        return sum(one.count for _, one in self.found.get(model, ()))

    def sign(self, model: str) -> str | None:
        signs = [one.sign for _, one in self.found.get(model, ())]
        return reduce(either, signs) if signs else None


def _use(model: str, live: _Side, declared: _Side) -> Use:
    told: dict[tuple[object, ...], Way] = {}
    for where, one, other in (("live", live, declared), ("declared", declared, live)):
        for path in one.paths(model):
            way = Way(path, "both" if other.has(model, path) else where)
            told.setdefault(facts(path), way)
    found = live.found.get(model)
    more = max(live.count(model), declared.count(model)) - len(told)
    digest = found[0][0].digest if found else ""
    ways = tuple(told.values())
    return Use(model, live.sign(model), declared.sign(model), digest, ways, max(0, more))


def _near(use: Use) -> tuple[int, str]:
    return min(len(way.path.edges) for way in use.ways), use.model


def _drawn(target: Node, world: World) -> Graph:
    """Return all ways up from a node as one graph, in which a merge stands once, live or declared.

    What is only live, or only declared, is noted at its edges.
    """
    nodes = {_plain(target): None}
    edges: dict[tuple[Node, Node, str, str], Edge] = {}
    for note, graph in (("live", world.live), ("declared", world.declared)):
        for one in _upward(graph, target):
            edge = Edge(_plain(one.part), _plain(one.whole), one.weight, note)
            nodes |= {edge.part: None, edge.whole: None}
            key = edge.part, edge.whole, repr(edge.weight), repr(edge.whole.factor)
            is_both = edges.setdefault(key, edge).note != note
            edges[key] = replace(edge, note="") if is_both else edge
    return Graph(tuple(nodes), tuple(edges.values()))


def _upward(graph: Graph, target: Node) -> Iterator[Edge]:
    for part in graph.nodes:
        if part.id == target.id:
            # As in words, a base is named by each model itself.
            above = {part} if part.kind == "base" else graph.above(part)
            yield from (edge for edge in graph.edges if edge.part in above)


def _plain(node: Node) -> Node:
    return node if node.is_older else replace(node, digest="")
