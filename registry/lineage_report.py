"""The lineage of a model as text, data and a page that opens from disk; how ways down are written.

Computes nothing of it. What a catalog says beside, descriptions and licences, is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from registry import graph_picture, page
from registry.containment import Containment, Path, contents
from registry.graph_picture import Link, no_link
from registry.lineage import Edge, Graph, Node, sign_of, times
from registry.report import factor_text, short, weight_text
from registry.spec import Catalog, Ingredient

_ADDRESS = re.compile(r"https?://\S+")
READING = (
    "Sign and weight are those of the whole way: the product of the weights and lambdas on it, "
    "schedules by their mean. What subtracts a subtraction adds. A method that trims, elects, "
    "divides or projects makes the share in the result another number."
)


def text(graph: Graph) -> str:
    """Return the ingredients of a model as a tree with signed weights; a merge is told once."""
    model, parts = graph.nodes[-1], graph.parts()
    head = f"{model.name} = {model.expression or '?'}  {short(model.digest)}"
    rest = [] if model.digest else ["as declared, not as built"]
    return "\n".join([head, *_branches(model, "+", "", parts, set()), *rest])


Parts = Mapping[Node, Sequence[Edge]]


def _branches(node: Node, sign: str, indent: str, parts: Parts, told: set[Node]) -> Iterator[str]:
    for position, edge in enumerate(parts[node]):
        part, is_last = edge.part, position == len(parts[node]) - 1
        in_all = times(sign, edge.sign)
        weight = f"{weight_text(edge.weight)} " if edge.weight is not None else ""
        notes = "".join(f"  ({note})" for note in _notes(edge, in_all, is_told=part in told))
        line = f"{weight}{part.label}{notes}  {short(part.digest)}"
        yield f"{indent}{'└─ ' if is_last else '├─ '}{line}"
        if part not in told:
            if parts[part]:
                told.add(part)
            yield from _branches(part, in_all, indent + ("   " if is_last else "│  "), parts, told)


def _notes(edge: Edge, in_all: str, *, is_told: bool) -> Iterator[str]:
    if edge.part.kind != "base":
        if in_all == "-":
            yield "subtracted"
        elif in_all == "±":
            yield "added and subtracted"
        elif in_all == "+" and edge.weight is not None and sign_of(edge.weight) == "-":
            yield "added in all"
    yield from node_notes(edge.part)
    if is_told:
        yield "as above"


def node_notes(node: Node) -> Iterator[str]:
    """Yield what is special about a node."""
    if node.revoked:
        yield f"REVOKED: {_on_one_line(node.revoked)}"
    yield from _states(node)


def _on_one_line(free: str) -> str:
    """Return free text without what moves a terminal's cursor or changes its colours."""
    return " ".join("".join(one if one.isprintable() else " " for one in free).split())


def _states(node: Node) -> Iterator[str]:
    if node.is_open:
        yield "a build of which nothing is known any more"
    elif node.is_older:
        yield "an earlier build"


def steps(path: Path) -> str:
    """Return a way down as text: `+0.5 polite-notes > -0.75 shout@1`."""
    return " > ".join(_step(edge) for edge in path.edges)


def _step(edge: Edge, minus: str = "-") -> str:
    factor = "" if edge.part.kind == "base" else factor_text(edge.whole.factor)
    numbers = [one for one in (factor, weight_text(edge.weight)) if one]
    weight = " · ".join(numbers).replace("-", minus)
    older = "(an earlier build)" if edge.part.is_older else ""
    return " ".join(one for one in (weight, edge.part.short, older) if one)


def as_data(graph: Graph, catalog: Catalog) -> dict[str, Any]:
    """Return the lineage as plain data: the tree, and all that is in it with every way."""
    model = graph.nodes[-1]
    rows = [_row_data(one, catalog) for one in contents(graph)]
    tree = _tree(model, None, graph.parts(), set())
    return {"model": tree, "is_built": bool(model.digest), "contains": rows}


def _tree(node: Node, edge: Edge | None, parts: Parts, told: set[Node]) -> dict[str, Any]:
    data = node_data(node)
    if edge and edge.weight is not None:
        data["weight"] = edge.weight
    if node.kind != "merge":
        return data
    if node in told:
        return data | {"is_above": True}
    told.add(node)
    inner = [_tree(one.part, one, parts, told) for one in parts[node]]
    return data | {"expression": node.expression, "ingredients": inner}


def node_data(node: Node) -> dict[str, Any]:
    """Return what is known of a node as plain data."""
    data: dict[str, Any] = {"kind": node.kind, "name": node.name, "digest": node.digest}
    if node.version is not None:
        data["version"] = node.version
    flags = {"revoked": node.revoked, "is_older": node.is_older, "is_open": node.is_open}
    return data | {name: value for name, value in flags.items() if value}


def _row_data(one: Containment, catalog: Catalog) -> dict[str, Any]:
    known = catalog.ingredients.get(one.part.id)
    beside: dict[str, Any] = {}
    if known:
        beside = {"description": known.description, "license": known.license}
        beside["origin"] = dict(known.origin)
    paths = [path_data(path) for path in one.paths]
    return {**node_data(one.part), "sign": one.sign, "ways": one.count, "paths": paths, **beside}


def path_data(path: Path) -> dict[str, Any]:
    """Return a way down as plain data; its first name is the model's."""
    weights = [edge.weight for edge in path.edges]
    factors = [edge.whole.factor for edge in path.edges]
    names = list(path.names)
    data = {"names": names, "weights": weights, "lambdas": factors, "sign": path.sign}
    return data | {"weight": path.weight}


def html(graph: Graph, catalog: Catalog, link: Link = no_link) -> str:
    """Return the lineage as one page: the drawing, and the same facts as a table."""
    model = graph.nodes[-1]
    state = f"As built: {model.digest}" if model.digest else "As declared, not as built."
    title = f"{model.name}: lineage"
    return page.html_page(
        title,
        [
            page.text(f"{model.name} = {model.expression or '?'}"),
            page.text(state),
            page.figure("Drawing", graph_picture.draw(graph, title, focus=model, link=link)),
            page.heading("Ingredients"),
            _table(graph, catalog, link),
            page.text(READING),
        ],
    )


_HEAD = ("ingredient", "version", "sign", "weight", "by way of", "revoked", "digest", "about")


def _table(graph: Graph, catalog: Catalog, link: Link) -> str:
    rows = []
    for one in contents(graph):
        part = one.part
        first = (
            page.linked(f"{part.kind} {part.name}", link(part)),
            "–" if part.version is None else str(part.version),
        )
        last = (
            escape(_on_one_line(part.revoked)) or "no",
            digest(part.digest),
            _about(catalog.ingredients.get(part.id), _description(part, catalog)),
        )
        for path in one.paths:
            way = way_of(path) if len(path.edges) > 1 else "directly"
            told = (sign_word(path.sign), weight_of(path), way)
            rows.append((*first, *told, *last))
        if more := one.count - len(one.paths):
            rows.append((*first, sign_word(one.sign), "", f"{more} more ways", *last))
    return page.table("Ingredients", _HEAD, rows)


def _description(node: Node, catalog: Catalog) -> str:
    spec = catalog.merges.get(node.name) if node.kind == "merge" else None
    return "; ".join([*([spec.description] if spec and spec.description else []), *_states(node)])


def way_of(path: Path) -> str:
    """Return a way down for a page, broken only between its steps."""
    return " &gt; ".join(f"<span>{escape(_step(edge, '−'))}</span>" for edge in path.edges)


def _about(known: Ingredient | None, description: str) -> str:
    lines = [escape(description)] if description else []
    if known:
        lines += [escape(known.description)] if known.description else []
        lines += [f"Licence: {escape(known.license)}"] if known.license else []
        lines += [_origin(str(key), str(value)) for key, value in known.origin.items()]
    return "<br>".join(lines) or "–"


def _origin(key: str, value: str) -> str:
    shown = escape(value)
    if _ADDRESS.fullmatch(value):
        shown = f'<a href="{shown}" rel="noreferrer">{shown}</a>'
    return f"{escape(key)}: {shown}"


def digest(whole: str) -> str:
    """Return a digest for a page, whole, in lines that can be short."""
    return f"<code>{escape(whole)}</code>" if whole else "–"


def sign_word(sign: str) -> str:
    """Return a sign with its word: colour and one character are easily missed."""
    words = {"+": "+ added", "-": "− subtracted", "±": "± both", "0": "0 nothing"}
    return f"<span>{words.get(sign, '–')}</span>"


def weight_of(path: Path) -> str:
    """Return the weight of the whole way for a page; of a direct schedule its ends."""
    is_direct = len(path.edges) == 1 and path.edges[0].whole.factor == 1
    weight = path.edges[0].weight if is_direct else path.weight
    return f"<span>{escape(graph_picture.signed(weight)) or '–'}</span>"
