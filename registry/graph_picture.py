"""A graph of models and ingredients as one SVG: no script, no font of its own, light and dark.

The same graph gives the same bytes. Whatever is written in it is escaped; nothing is computed but
places. What is subtracted is dashed and has a minus sign, so colour is never the only signal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from html import escape

from registry import graph_layout
from registry.graph_layout import BOX_WIDTH, Box, Line
from registry.lineage import Edge, Graph, Node, sign_of
from registry.report import factor_text, weight_text
from schemas.schedule import Scheduled

Link = Callable[[Node], str | None]
"""The address of a node's page, None for a node that has none."""

_LETTERS = 23  # of a name, in a box; its font has letters of one width
_LEGEND_HEIGHT = 34
_ROUNDING = {"base": 0, "adapter": 16, "checkpoint": 8}
_LIGHT = {
    ".paper": "fill:#fff",
    "text": "fill:#1a1a1a",
    ".kind,.key": "fill:#555",
    ".box": "fill:#f3f5f7;stroke:#5a6672",
    ".chip": "fill:#fff",
    ".line": "stroke:#0b5c8c",
    ".tip": "fill:#0b5c8c",
    ".base .line": "stroke:#8a939c",
    ".base .tip": "fill:#8a939c",
    ".minus .line": "stroke:#b3400a",
    ".minus .tip,.minus text": "fill:#b3400a",
    ".mixed .line": "stroke:#7a3e9d",
    ".mixed .tip,.mixed text": "fill:#7a3e9d",
    ".revoked .box": "stroke:#b00020",
    ".revoked .kind": "fill:#b00020",
}
_DARK = {
    ".paper": "fill:#121212",
    "text": "fill:#e8e8e8",
    ".kind,.key": "fill:#b5b5b5",
    ".box": "fill:#22272c;stroke:#8a97a3",
    ".chip": "fill:#121212",
    ".line": "stroke:#6cb8ea",
    ".tip": "fill:#6cb8ea",
    ".base .line": "stroke:#77828c",
    ".base .tip": "fill:#77828c",
    ".minus .line": "stroke:#ffa26b",
    ".minus .tip,.minus text": "fill:#ffa26b",
    ".mixed .line": "stroke:#c79be6",
    ".mixed .tip,.mixed text": "fill:#c79be6",
    ".revoked .box": "stroke:#ff8080",
    ".revoked .kind": "fill:#ff8080",
}
_SHAPES = (
    "text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    ".kind,.key{font-size:11px}.name{font-weight:600}.box{stroke-width:1.2}"
    ".focus .box{stroke-width:3}.revoked .box{stroke-width:3;stroke-dasharray:2 3}"
    ".line{fill:none;stroke-width:1.8}.base .line{stroke-width:1}"
    ".minus .line{stroke-dasharray:7 5}.mixed .line{stroke-dasharray:10 4 2 4}"
    "a .name{text-decoration:underline}a:focus .box{stroke-width:4}"
)


def no_link(_: Node) -> None:
    """Return the address of no page."""


def draw(graph: Graph, title: str, *, focus: Node | None = None, link: Link = no_link) -> str:
    """Return the drawing of a graph; `focus` is the node that it is about."""
    shown = without_implied(graph)
    layout = graph_layout.arrange(shown, label)
    links = {node: link(node) for node in shown.nodes}
    width, height = max(layout.width, 420.0), layout.height + _LEGEND_HEIGHT
    # A picture hides what is inside from a screen reader, so one with links is none.
    role = "group" if any(links.values()) else "img"
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="lineage" role="{role}" {size}>',
            f"<title>{_text(title)}</title><desc>{_text(_told(shown))}</desc>",
            f"<style>{_style()}</style>",
            f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>',
            *map(_line, layout.lines),
            *(_box(one, links[one.node], is_focus=one.node == focus) for one in layout.boxes),
            *_legend(shown, layout.height),
            "</svg>",
        )
    )


def without_implied(graph: Graph) -> Graph:
    """Return the graph without the base of a merge that has it from a merge inside as well."""
    bases: dict[Node, set[Node]] = {node: set() for node in graph.nodes}
    inner: dict[Node, set[Node]] = {node: set() for node in graph.nodes}
    for edge in graph.edges:
        if edge.part.kind == "base":
            bases[edge.whole].add(edge.part)
    for edge in graph.edges:
        inner[edge.whole] |= bases[edge.part]
    edges = [edge for edge in graph.edges if edge.part not in inner[edge.whole]]
    return Graph(graph.nodes, tuple(edges))


def label(edge: Edge) -> str:
    """Return what stands at an edge's end: `+0.8`, `−0.5`, `[0.2…0.9]`; nothing for the base."""
    if edge.part.kind == "base":
        return edge.note
    own = signed(edge.weight) or "+"
    # A lambda that changes signs stands in the box; without a hint a dashed +1 is a riddle.
    own += "" if sign_of(edge.whole.factor) == "+" else " · λ"
    return f"{own} {edge.note}" if edge.note else own


def signed(weight: Scheduled | None) -> str:
    """Return a weight with the minus sign of mathematics."""
    return weight_text(weight).replace("-", "−")


def _style() -> str:
    def rules(colours: dict[str, str]) -> str:
        return "".join(f"{_scoped(name)}{{{value}}}" for name, value in colours.items())

    # Scoped, since a page that holds the drawing would take the rules for its own.
    shapes = "".join(
        f"{_scoped(rule.split('{')[0])}{{{rule.split('{')[1]}}}" for rule in _SHAPES.split("}")[:-1]
    )
    return f"{shapes}{rules(_LIGHT)}@media (prefers-color-scheme:dark){{{rules(_DARK)}}}"


def _scoped(names: str) -> str:
    return ",".join(f".lineage {name}" for name in names.split(","))


def _told(graph: Graph) -> str:
    """Return the drawing in words."""
    return "; ".join(map(_sentence, graph.edges)) or "one node"


def _sentence(edge: Edge) -> str:
    if edge.part.kind == "base":
        return f"{edge.whole.label} is built on {edge.part.label}"
    what = {"-": "subtracted from", "±": "added here and subtracted there in"}
    return (
        f"{edge.part.label} is {what.get(edge.sign, 'part of')} {edge.whole.label} ({label(edge)})"
    )


def _line(line: Line) -> str:
    edge = line.edge
    x, y = line.points[-1]
    tip = f'<path class="tip" d="M{x:.1f} {y:.1f}l-9 -4.5v9z"/>'
    return (
        f'<g class="{_class(edge)}"><title>{_text(_sentence(edge))}</title>'
        f'<path class="line" d="{_curve(line)}"/>{tip}{_chip(line)}</g>'
    )


def _class(edge: Edge) -> str:
    if edge.part.kind == "base":
        return "base"
    return {"-": "minus", "±": "mixed"}.get(edge.sign, "plus")


def _curve(line: Line) -> str:
    (x, y), *rest = line.points
    parts = [f"M{x:.1f} {y:.1f}"]
    for position, (to_x, to_y) in enumerate(rest):
        # The last level piece ends where the arrow's tip begins.
        is_end = position == len(rest) - 1
        if position % 2:
            parts.append(f"H{to_x - 6 * is_end:.1f}")
        else:
            middle = (x + to_x) / 2
            parts.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return "".join(parts)


def _chip(line: Line) -> str:
    if not line.label:
        return ""
    x, y = line.label_at
    width = 7.4 * _columns(line.label) + 6
    return (
        f'<rect class="chip" x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" '
        f'height="16"/><text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">'
        f"{_text(line.label)}</text>"
    )


def _box(box: Box, link: str | None, *, is_focus: bool) -> str:
    node = box.node
    classes = ["node", *(["focus"] if is_focus else []), *(["revoked"] if node.revoked else [])]
    top, left = box.y - box.height / 2, box.x
    drawn = (
        f'<g class="{" ".join(classes)}"><title>{_text(_whole(node))}</title>'
        f'<rect class="box" x="{left:.1f}" y="{top:.1f}" width="{BOX_WIDTH:.0f}" '
        f'height="{box.height:.1f}" rx="{_ROUNDING.get(node.kind, 3)}"/>'
        f'<text class="kind" x="{left + 12:.1f}" y="{box.y - 6:.1f}">{_text(_kind(node))}</text>'
        f'<text class="name" x="{left + 12:.1f}" y="{box.y + 12:.1f}">{_text(_name(node))}</text>'
        "</g>"
    )
    return f'<a href="{escape(link)}">{drawn}</a>' if link else drawn


def _kind(node: Node) -> str:
    """Return the small line over the name: what it is, and what is special about it."""
    notes = [node.kind]
    if node.is_open or node.is_older:
        notes.append("older build")
    if factor := factor_text(node.factor):
        notes.append(factor.replace("-", "−"))
    if node.revoked:
        notes.append("REVOKED")
    return _cut(", ".join(notes), 0)


def _name(node: Node) -> str:
    version = "" if node.version is None else f"@{node.version}"
    return _cut(node.name, _columns(version)) + version


def _whole(node: Node) -> str:
    lines = [node.label, node.expression, node.digest]
    lines += [f"revoked: {node.revoked}"] if node.revoked else []
    lines += ["an earlier build, not what is live under this name"] if node.is_older else []
    lines += ["what it is made of is not known any more"] if node.is_open else []
    return "\n".join(line for line in lines if line)


def _cut(name: str, taken: int) -> str:
    """Return as much of a name as a box has room for, when so many columns are taken."""
    room = _LETTERS - taken
    if _columns(name) <= room:
        return name
    while name and _columns(name) >= room:
        name = name[:-1]
    return f"{name}…"


def _columns(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _text(text: str) -> str:
    """Return text for XML, which no escape lets hold control characters."""
    kept = "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)
    return escape(kept)


def _legend(graph: Graph, top: float) -> Iterator[str]:
    """Yield the key to what is in the drawing, and to nothing else."""
    found = {_class(edge) for edge in graph.edges}
    words_by_kind = {
        "plus": "+ added",
        "minus": "− subtracted",
        "mixed": "± both, by layer",
        "base": "base",
    }
    entries = [(kind, words) for kind, words in words_by_kind.items() if kind in found]
    x, y = 16.0, top + 12
    for kind, words in entries:
        yield (
            f'<g class="{kind}"><path class="line" d="M{x:.0f} {y:.0f}h34"/>'
            f'<text class="key" x="{x + 42:.0f}" y="{y + 4:.0f}">{words}</text></g>'
        )
        x += 64 + 7 * len(words)
