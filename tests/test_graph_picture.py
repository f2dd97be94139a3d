"""The drawing of a graph: well-formed, readable, deterministic, safe."""

from __future__ import annotations

import random
import time
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from registry import graph_layout, graph_picture
from registry.graph_layout import BOX_WIDTH, Layout
from registry.lineage import Graph, Known, Node, ingredients
from tests.graphs import BASE, adapter, declared, merge, request

SVG = "{http://www.w3.org/2000/svg}"


def parsed(graph: Graph, **options: object) -> ET.Element:
    svg = graph_picture.draw(graph, "Lineage", **options)  # type: ignore[arg-type]
    return ET.fromstring(svg)


def texts(root: ET.Element, kind: str) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text") if one.get("class") == kind]


def large(count: int) -> Graph:
    """Return a graph of about `count` nodes with long names, shared parts and every kind of edge."""
    rng = random.Random(1)
    weights = (1.0, -0.5, 0.123456, {"layers": [0.2, 0.9]}, {"layers": [-0.2, 0.9]})
    names = [f"an-adapter-with-a-rather-long-name-{number}" for number in range(count // 2)]
    requests = {}
    for number in range(count // 2):
        terms = [
            adapter(name, rng.choice(weights), rng.randint(1, 12)) for name in rng.sample(names, 2)
        ]
        below = rng.sample(range(max(0, number - 20), number), min(number, 2))
        terms += [merge(f"merge-{one}", rng.choice(weights)) for one in below]
        requests[f"merge-{number}"] = request(*terms, factor=rng.choice((1.0, -0.5)))
    tops = [merge(name) for name in list(requests)[-20:]]
    return ingredients("top", Known({**requests, "top": request(*tops)}))


DIAMOND = ingredients(
    "top",
    declared(
        left=request(adapter("shared"), adapter("other", -0.5)),
        right=request(adapter("shared", {"layers": [0.2, 0.6, 0.9]})),
        top=request(merge("left", 0.8), merge("right")),
    ),
)


def test_what_is_shared_is_drawn_once_with_signed_weights_at_its_edges() -> None:
    root = parsed(DIAMOND)

    names = ["base", "shared@1", "other@1", "left", "right", "top"]
    assert sorted(texts(root, "name")) == sorted(names)
    labels = [one.text for one in root.iter(f"{SVG}text") if one.get("text-anchor") == "middle"]
    assert sorted(map(str, labels)) == ["+0.8", "+1", "+1", "[0.2…0.9]", "−0.5"]


def test_a_subtraction_differs_by_dashes_sign_and_words() -> None:
    svg = graph_picture.draw(DIAMOND, "Lineage")
    groups = [one for one in parsed(DIAMOND).iter(f"{SVG}g") if one.get("class") == "minus"]

    assert ".lineage .minus .line{stroke-dasharray:7 5}" in svg
    edge, legend = groups
    assert edge.findtext(f"{SVG}title") == "adapter other@1 is subtracted from merge left (−0.5)"
    assert legend.findtext(f"{SVG}text") == "− subtracted"


def test_a_lambda_that_changes_the_sign_is_at_the_edge_and_in_the_box() -> None:
    known = declared(top=request(adapter("a", 0.5), factor=-1.0))

    root = parsed(ingredients("top", known))

    labels = [one.text for one in root.iter(f"{SVG}text") if one.get("text-anchor") == "middle"]
    assert labels == ["+0.5 · λ"]
    assert "merge, λ −1" in texts(root, "kind")
    assert "minus" in [one.get("class") for one in root.iter(f"{SVG}g")]


def test_the_base_of_a_merge_inside_is_not_drawn_again() -> None:
    shown = graph_picture.without_implied(DIAMOND)

    wholes = [edge.whole.name for edge in shown.edges if edge.part.kind == "base"]
    assert wholes == ["left", "right"]


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert graph_picture.draw(large(60), "Same") == graph_picture.draw(large(60), "Same")


def test_hostile_names_are_text_and_nothing_else() -> None:
    name = "</title><script>alert(1)</script>\x00\x1b[31m\ud800\u202e\"'&"
    base = {**BASE, "name": name}
    known = Known({name: {**request(adapter(name, -1.0)), "base": base}})
    graph = ingredients(name, known)

    svg = graph_picture.draw(graph, name, focus=graph.nodes[-1], link=lambda _: '"><b>')

    root = ET.fromstring(svg.encode())
    tags = {one.tag.removeprefix(SVG) for one in root.iter()}
    assert tags == {"svg", "title", "desc", "style", "rect", "g", "path", "text", "a"}
    assert {one.get("href") for one in root.iter(f"{SVG}a")} == {'"><b>'}


def test_a_long_name_is_cut_and_whole_in_its_title() -> None:
    name = "a" + "-very" * 12
    root = parsed(ingredients("top", declared(top=request(adapter(name, version=12)))))

    (group,) = [
        one
        for one in root.iter(f"{SVG}g")
        if (one.findtext(f"{SVG}title") or "").startswith(f"adapter {name}@12")
        and one.get("class") == "node"
    ]
    (shown,) = [one.text for one in group.iter(f"{SVG}text") if one.get("class") == "name"]
    assert shown is not None
    assert shown.endswith("…@12")
    assert len(shown) <= 23


def test_with_links_every_node_is_one_and_the_whole_is_no_picture() -> None:
    pages = {"adapter": "/adapters/", "merge": "/models/"}

    def link(node: Node) -> str | None:
        return f"{pages[node.kind]}{node.name}" if node.kind in pages else None

    root = parsed(DIAMOND, link=link)

    assert [one.get("role") for one in (root, parsed(DIAMOND))] == ["group", "img"]
    found = sorted(str(one.get("href")) for one in root.iter(f"{SVG}a"))
    assert found == [
        "/adapters/other",
        "/adapters/shared",
        "/models/left",
        "/models/right",
        "/models/top",
    ]


def boxes(layout: Layout) -> list[tuple[float, float, float, float]]:
    return [
        (one.x, one.y - one.height / 2, one.x + BOX_WIDTH, one.y + one.height / 2)
        for one in layout.boxes
    ]


def labels(layout: Layout) -> list[tuple[float, float, float, float]]:
    half = [(7.4 * len(line.label) + 6) / 2 for line in layout.lines]
    places = [(*line.label_at, width) for line, width in zip(layout.lines, half, strict=True)]
    return [(x - width, y - 8, x + width, y + 8) for x, y, width in places if width > 3]


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("graph", [DIAMOND, large(200)], ids=["small", "large"])
def test_no_box_and_no_label_covers_another(graph: Graph) -> None:
    started = time.process_time()
    layout = graph_layout.arrange(graph, graph_picture.label)
    seconds = time.process_time() - started

    placed = [*boxes(layout), *labels(layout)]
    assert [pair for pair in combinations(placed, 2) if overlap(*pair)] == []
    assert all(left >= 0 and top >= 0 for left, top, _, _ in placed)
    assert all(right <= layout.width and bottom <= layout.height for *_, right, bottom in placed)
    assert seconds < 2


def test_every_edge_runs_from_left_to_right_outside_of_boxes() -> None:
    layout = graph_layout.arrange(large(200), graph_picture.label)
    placed = boxes(layout)

    for line in layout.lines:
        xs = [x for x, _ in line.points]
        assert xs == sorted(xs)
        # The level pieces beside other boxes: a long edge passes between them.
        for (x, y), (to_x, _) in zip(line.points[1:-1:2], line.points[2:-1:2], strict=False):
            level = (x, y - 1, to_x, y + 1)
            assert not any(overlap(level, box) for box in placed)
