"""Where the nodes and edges of a graph are drawn: layers from left to right, as plain numbers.

After Sugiyama, Tagawa and Toda 1981: layers, then an order with few crossings, then places. Knows
sizes in pixels, but no colours and no SVG. Pure and deterministic; a cycle is survived.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from registry.lineage import Edge, Graph, Node

BOX_WIDTH = 190.0
MARGIN = 16.0
PORT = 18.0
"""Distance between the ends of two edges at one box: a label has room beside it."""

_BOX_HEIGHT = 46.0
_BEND_HEIGHT = 6.0
_GAP = 16.0
_FAN = 64.0  # room for curves between the boxes and the labels
_LETTER = 7.0
_SWEEPS = 8

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A node and the middle of its left side."""

    node: Node
    x: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    """An edge: points of curves and of level pieces in turn, and the middle of its label."""

    edge: Edge
    points: tuple[Point, ...]
    label: str
    label_at: Point


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything with its place."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: float
    height: float


@dataclass(eq=False, slots=True)
class _Place:
    """A node, or a bend (no node) where a long edge passes a layer."""

    node: Node | None
    layer: int
    height: float
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class _Route:
    """An edge by way of its bends."""

    edge: Edge
    label: str
    places: tuple[_Place, ...]


def arrange(graph: Graph, label: Callable[[Edge], str]) -> Layout:
    """Return the places of all nodes and edges; `label` is what is written at an edge's end."""
    layers = _layers(graph)
    counts = dict.fromkeys(graph.nodes, 0)
    for edge in graph.edges:
        counts[edge.whole] += 1
    places = {
        node: _Place(node, layers[node], max(_BOX_HEIGHT, counts[node] * PORT + 10))
        for node in graph.nodes
    }
    routes = [_route(edge, label(edge), places) for edge in graph.edges]
    rows = _rows(places.values(), routes)
    links = _links(routes)
    rows = _untangled(rows, links)
    _settle(rows, links)
    return _drawn(rows, routes)


def _layers(graph: Graph) -> dict[Node, int]:
    """Return each node's layer: one more than its parts'; an ingredient stands before its user."""
    parts = graph.parts()
    layers: dict[Node, int] = {}
    is_open: set[Node] = set()

    def visit(node: Node) -> int:
        if node not in layers:
            is_open.add(node)
            below = [visit(edge.part) for edge in parts[node] if edge.part not in is_open]
            is_open.discard(node)
            layers[node] = 1 + max(below, default=-1)
        return layers[node]

    for node in graph.nodes:
        visit(node)
    users: dict[Node, int] = {}
    for edge in graph.edges:
        users[edge.part] = min(users.get(edge.part, len(layers)), layers[edge.whole])
    return {
        node: layer if parts[node] else max(0, users.get(node, 1) - 1)
        for node, layer in layers.items()
    }


def _route(edge: Edge, label: str, places: Mapping[Node, _Place]) -> _Route:
    start, end = places[edge.part], places[edge.whole]
    bends = [_Place(None, layer, _BEND_HEIGHT) for layer in range(start.layer + 1, end.layer)]
    return _Route(edge, label, (start, *bends, end))


def _rows(places: Iterable[_Place], routes: Sequence[_Route]) -> list[list[_Place]]:
    found = dict.fromkeys(places)
    for route in routes:
        found |= dict.fromkeys(route.places)
    rows: list[list[_Place]] = [[] for _ in range(1 + max(one.layer for one in found))]
    for one in found:
        rows[one.layer].append(one)
    return rows


Links = Mapping[_Place, tuple[list[_Place], list[_Place]]]
"""The neighbours of each place in the layers before and after it."""


def _links(routes: Sequence[_Route]) -> Links:
    found: dict[_Place, tuple[list[_Place], list[_Place]]] = {}
    for route in routes:
        for one, other in pairwise(route.places):
            found.setdefault(one, ([], []))[1].append(other)
            found.setdefault(other, ([], []))[0].append(one)
    return found


def _untangled(rows: list[list[_Place]], links: Links) -> list[list[_Place]]:
    """Return the rows in the order with the fewest crossings that some sweeps find."""
    best, fewest = rows, _crossings(rows, links)
    for sweep in range(_SWEEPS):
        side = sweep % 2
        done: list[list[_Place]] = []
        for row in rows[::-1] if side else rows:
            done.append(_sorted(row, done[-1] if done else [], links, side))
        rows = done[::-1] if side else done
        if (count := _crossings(rows, links)) < fewest:
            best, fewest = rows, count
    return best


def _sorted(
    row: Sequence[_Place], fixed: Sequence[_Place], links: Links, side: int
) -> list[_Place]:
    """Return a row in the order of its neighbours in the row that is fixed already."""
    index = {one: number for number, one in enumerate(fixed)}

    def centre(numbered: tuple[int, _Place]) -> float:
        number, one = numbered
        found = _mean([index[other] for other in _beside(one, links)[side] if other in index])
        return number if found is None else found

    return [one for _, one in sorted(enumerate(row), key=centre)]


def _beside(one: _Place, links: Links) -> tuple[list[_Place], list[_Place]]:
    return links.get(one, ([], []))


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def _crossings(rows: Sequence[Sequence[_Place]], links: Links) -> int:
    count = 0
    for row, after in pairwise(rows):
        index = {one: number for number, one in enumerate(after)}
        ends = [[index[n] for n in _beside(one, links)[1] if n in index] for one in row]
        passed: list[int] = []
        for several in ends:
            count += sum(len(passed) - bisect_right(passed, one) for one in several)
            for one in several:
                insort(passed, one)
    return count


def _settle(rows: Sequence[Sequence[_Place]], links: Links) -> None:
    """Give every place its height on the page: near its neighbours, none over another."""
    for row in rows:
        _spread(row, [0.0] * len(row))
    for sweep in range(2 * _SWEEPS):
        for row in rows[::-1] if sweep % 2 else rows:
            _spread(row, [_wanted(one, links) for one in row])
    top = min(one.y - one.height / 2 for row in rows for one in row)
    for row in rows:
        for one in row:
            one.y += MARGIN - top


def _wanted(one: _Place, links: Links) -> float:
    centre = _mean([other.y for side in _beside(one, links) for other in side])
    return one.y if centre is None else centre


def _spread(row: Sequence[_Place], wanted: Sequence[float]) -> None:
    """Place a row as near to what is wanted as its order and sizes allow (least squares)."""
    offset, offsets = 0.0, []
    for number, one in enumerate(row):
        if number:
            offset += (row[number - 1].height + one.height) / 2 + _GAP
        offsets.append(offset)
    pools: list[tuple[float, int]] = []  # sum and count of neighbours that push each other
    for want, own in zip(wanted, offsets, strict=True):
        total, count = want - own, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            more, others = pools.pop()
            total, count = total + more, count + others
        pools.append((total, count))
    starts = [total / count for total, count in pools for _ in range(count)]
    for one, start, own in zip(row, starts, offsets, strict=True):
        one.y = start + own


def _drawn(rows: Sequence[Sequence[_Place]], routes: Sequence[_Route]) -> Layout:
    gutters = [0.0] * len(rows)
    for route in routes:
        layer = route.places[-1].layer
        gutters[layer] = max(gutters[layer], len(route.label) * _LETTER + 26)
    lefts, x = [], MARGIN
    for number in range(len(rows)):
        x += (BOX_WIDTH + _FAN + gutters[number]) if number else 0
        lefts.append(x)
    boxes = [
        Box(one.node, lefts[one.layer], one.y, one.height)
        for row in rows
        for one in row
        if one.node
    ]
    lines = _lines(routes, lefts, gutters)
    bottom = max(one.y + one.height / 2 for row in rows for one in row)
    return Layout(tuple(boxes), tuple(lines), x + BOX_WIDTH + MARGIN, bottom + MARGIN)


def _lines(
    routes: Sequence[_Route], lefts: Sequence[float], gutters: Sequence[float]
) -> list[Line]:
    ports: dict[_Place, list[_Route]] = {}
    for route in routes:
        ports.setdefault(route.places[-1], []).append(route)
    heights: dict[int, float] = {}
    for place, several in ports.items():
        several.sort(key=lambda one: one.places[-2].y)
        first = place.y - (len(several) - 1) * PORT / 2
        heights |= {id(one): first + number * PORT for number, one in enumerate(several)}
    return [_line(route, heights[id(route)], lefts, gutters) for route in routes]


def _line(route: _Route, y: float, lefts: Sequence[float], gutters: Sequence[float]) -> Line:
    start, *bends, end = route.places
    points = [(lefts[start.layer] + BOX_WIDTH, start.y)]
    for bend in bends:
        points += [(lefts[bend.layer] - gutters[bend.layer], bend.y)]
        points += [(lefts[bend.layer] + BOX_WIDTH, bend.y)]
    left, gutter = lefts[end.layer], gutters[end.layer]
    points += [(left - gutter, y), (left, y)]
    return Line(route.edge, tuple(points), route.label, (left - gutter / 2 - 4, y))
