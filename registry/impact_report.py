"""Which models contain an ingredient, as text, data and a page that opens from disk.

Computes nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from registry import graph_picture, page
from registry.graph_picture import Link, no_link
from registry.impact import Impact, Open, Use, Way
from registry.lineage import Graph, Node
from registry.lineage_report import (
    READING,
    digest,
    node_data,
    node_notes,
    path_data,
    sign_word,
    steps,
    way_of,
    weight_of,
)
from registry.report import short, weight_text
from registry.report import table as text_table

_HEAD = ("model", "where", "sign", "weight", "by way of")


def text(found: Sequence[Impact], unknown: Sequence[Open]) -> str:
    """Return what contains each ingredient as a table, and the counts as its last line."""
    return "\n".join(line for one in found for line in _lines(one, unknown))


def _lines(one: Impact, unknown: Sequence[Open]) -> Iterator[str]:
    notes = "".join(f"  ({note})" for note in node_notes(one.node))
    yield f"{one.node.label}{notes}  {short(one.node.digest)}"
    rows = [row for use in one.uses for row in _rows(use)]
    if rows:
        yield from (f"  {line}" for line in text_table(rows, head=_HEAD))
    yield from (f"  not known: {line}" for line in unknown_text(unknown))
    yield f"{one.node.label}: {summary(one)}"


def _rows(use: Use) -> Iterator[tuple[str, str, str, str, str]]:
    for way in use.ways:
        weight = weight_text(way.path.weight) or "-"
        yield use.model, way.where, way.path.sign or "-", weight, steps(way.path)
    if use.more:
        yield use.model, use.where, "", "", f"{use.more} more ways"


def summary(one: Impact) -> str:
    """Return how many models contain it: `in 3 models: 2 live, 3 declared`."""
    count = len(one.uses)
    if not count:
        return "in no model"
    live = sum(use.live is not None for use in one.uses)
    declared = sum(use.declared is not None for use in one.uses)
    return f"in {count} model{'' if count == 1 else 's'}: {live} live, {declared} declared"


def unknown_text(unknown: Iterable[Open]) -> Iterator[str]:
    """Yield of which live models it is not known what they contain, and why."""
    for one in unknown:
        if one.part is None:
            yield f"{one.model} has a record that cannot be read"
            continue
        part = f"{one.part.label} {short(one.part.digest)}"
        yield f"{one.model} holds an earlier build of {part}, of which nothing is known any more"


def as_data(found: Iterable[Impact], unknown: Iterable[Open]) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "ingredients": [
            {**node_data(one.node), "models": [_use_data(use) for use in one.uses]} for one in found
        ],
        "unknown": [
            {"model": one.model, "holds": node_data(one.part) if one.part else None}
            for one in unknown
        ],
    }


def _use_data(use: Use) -> dict[str, Any]:
    return {
        "model": use.model,
        "where": use.where,
        "sign": {"live": use.live, "declared": use.declared},
        "model_digest": use.digest or None,
        "paths": [{**path_data(way.path), "where": way.where} for way in use.ways],
        "more_paths": use.more,
    }


def drawing(found: Sequence[Impact], link: Link = no_link) -> str:
    """Return everything that was found as one drawing."""
    edges = [edge for one in found for edge in one.graph.edges]
    nodes = dict.fromkeys(node for one in found for node in one.graph.nodes)
    drawn = {node for edge in edges for node in (edge.part, edge.whole)}
    # What is in no model is drawn only where nothing else is.
    graph = Graph(tuple(node for node in nodes if node in drawn or not drawn), tuple(edges))
    title, notes = _title(found), {edge.note for edge in edges}
    if len(notes) == 1 and (note := notes.pop()):
        # Said of everything, it is said once.
        graph = Graph(graph.nodes, tuple(replace(edge, note="") for edge in edges))
        title = f"{title} ({note} only)"
    focus = found[0].graph.nodes[0] if len(found) == 1 else None
    return graph_picture.draw(graph, title, focus=focus, link=link)


def html(found: Sequence[Impact], unknown: Sequence[Open], link: Link = no_link) -> str:
    """Return what contains the ingredients as one page: the drawing, and the same as tables."""
    parts = [page.figure("Drawing", drawing(found, link))]
    for one in found:
        parts += [page.heading(one.node.label), *map(page.text, node_notes(one.node))]
        told = summary(one)
        parts.append(page.text(f"{told[0].upper()}{told[1:]}."))
        parts += [f"<p>{digest(one.node.digest)}</p>"] if one.node.digest else []
        if one.uses:
            parts.append(_table(one, link))
    parts += [page.text(f"Not known: {line}") for line in unknown_text(unknown)]
    return page.html_page(_title(found), [*parts, page.text(READING)])


def _title(found: Sequence[Impact]) -> str:
    first = found[0].node
    what = first.label if len(found) == 1 else f"{first.kind} {first.name}, every version"
    return f"{what}: which models contain it"


def _table(one: Impact, link: Link) -> str:
    rows = []
    for use in one.uses:
        name = page.linked(use.model, link(Node("merge", use.model)))
        rows += [(name, *_cells(way), digest(use.digest)) for way in use.ways]
        if use.more:
            rows.append((name, use.where, "", "", f"{use.more} more ways", digest(use.digest)))
    return page.table(f"Models with {one.node.label}", (*_HEAD, "digest of what is live"), rows)


def _cells(way: Way) -> tuple[str, str, str, str]:
    path = way.path
    return way.where, sign_word(path.sign), weight_of(path), way_of(path)
