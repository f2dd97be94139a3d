"""What contains what: signs, weights and ways at any depth, as built and as declared."""

from __future__ import annotations

import json

import pytest

from registry import lineage_report
from registry.containment import PATHS, containments, contents
from registry.lineage import Graph, Known, Node, ingredients
from registry.spec import Catalog, Ingredient, MergeSpec, Settings
from tests.conftest import Repository
from tests.graphs import adapter, declared, diamonds, digest, live, merge, request

SCHEDULE = {"layers": [0.2, 0.6, 0.9]}
CROSSING = {"layers": [-0.4, 0.8]}


def told(graph: Graph) -> list[tuple[str, str, float | None, str]]:
    """Return every way down with its sign and weight."""
    return [
        (one.part.label, path.sign, path.weight, lineage_report.steps(path))
        for one in contents(graph)
        for path in one.paths
    ]


def test_lineage_is_a_tree_with_signed_weights_at_any_depth() -> None:
    known = live(
        inner=request(adapter("a"), adapter("b"), method="linear"),
        outer=request(merge("inner", 0.5, of=digest("i")), adapter("c", -1.0)),
    )

    graph = ingredients("outer", known)

    assert lineage_report.text(graph).splitlines() == [
        "outer = base + 0.5·inner − 1·c@1  sha256:oooooooooooo…",
        "├─ base base  sha256:000000000000…",
        "├─ +0.5 merge inner  sha256:iiiiiiiiiiii…",
        "│  ├─ base base  sha256:000000000000…",
        "│  ├─ +1 adapter a@1  sha256:aaaaaaaaaaaa…",
        "│  └─ +1 adapter b@1  sha256:bbbbbbbbbbbb…",
        "└─ -1 adapter c@1  (subtracted)  sha256:cccccccccccc…",
    ]
    assert told(graph) == [
        ("base base", "", None, "base"),
        ("adapter c@1", "-", -1.0, "-1 c@1"),
        ("merge inner", "+", 0.5, "+0.5 inner"),
        ("adapter a@1", "+", 0.5, "+0.5 inner > +1 a@1"),
        ("adapter b@1", "+", 0.5, "+0.5 inner > +1 b@1"),
    ]


def test_subtracting_a_merge_that_subtracts_adds() -> None:
    known = declared(inner=request(adapter("a", -0.5)), outer=request(merge("inner", -0.8)))

    graph = ingredients("outer", known)

    assert told(graph)[-1] == ("adapter a@1", "+", 0.4, "-0.8 inner > -0.5 a@1")
    text = lineage_report.text(graph)
    assert "└─ -0.8 merge inner  (subtracted)" in text
    assert "-0.5 adapter a@1  (added: what takes it away is subtracted)" in text
    assert text.endswith("as declared, not as built")


def test_a_negative_lambda_subtracts_what_is_added() -> None:
    known = declared(inner=request(adapter("a"), factor=-0.5), outer=request(merge("inner", 0.5)))

    graph = ingredients("outer", known)

    assert told(graph)[-1] == ("adapter a@1", "-", -0.25, "+0.5 inner > λ -0.5 · +1 a@1")
    assert "+1 adapter a@1  (subtracted)" in lineage_report.text(graph)


@pytest.mark.parametrize(
    ("weight", "sign", "product"),
    [(SCHEDULE, "+", 0.5 * 1.7 / 3), (CROSSING, "±", 0.1), (0.0, "0", 0.0)],
)
def test_a_schedule_counts_by_its_mean_and_every_sign_of_it(
    weight: object, sign: str, product: float
) -> None:
    known = declared(inner=request(adapter("a", weight)), outer=request(merge("inner", 0.5)))

    _, found, number, _ = told(ingredients("outer", known))[-1]

    assert (found, number) == (sign, pytest.approx(product))


def test_a_method_without_weights_has_signs_alone() -> None:
    known = declared(
        inner=request(adapter("a"), adapter("b"), method="slerp"),
        outer=request(merge("inner", -0.5)),
    )

    graph = ingredients("outer", known)

    assert told(graph)[-1] == ("adapter b@1", "-", None, "-0.5 inner > b@1")
    assert "├─ adapter a@1  (subtracted)" in lineage_report.text(graph)


def test_several_ways_are_all_told_and_have_one_sign_together() -> None:
    known = declared(
        plus=request(adapter("a")),
        minus=request(adapter("a", -1.0)),
        outer=request(merge("plus"), merge("minus", 0.5), adapter("a", 0.25)),
    )

    found = next(one for one in contents(ingredients("outer", known)) if one.part.name == "a")

    assert (found.sign, found.count) == ("±", 3)
    ways = [(path.sign, path.weight, path.names) for path in found.paths]
    assert sorted(ways) == [
        ("+", 0.25, ("outer", "a@1")),
        ("+", 1.0, ("outer", "plus", "a@1")),
        ("-", -0.5, ("outer", "minus", "a@1")),
    ]


def test_exponentially_many_ways_are_counted_and_the_first_are_told() -> None:
    graph = ingredients("m40", diamonds(40))

    found = containments(graph, Node("adapter", "a", 1, digest("a")))[graph.nodes[-1]]

    assert (found.count, len(found.paths), found.sign) == (2**40, PATHS, "+")
    text = lineage_report.text(graph)
    assert text.count("adapter a@1") == 1
    assert "merge m0  (as above)" in text
    rows = lineage_report.as_data(graph, NOTHING)["contains"]
    assert next(one for one in rows if one["name"] == "a")["ways"] == 2**40
    assert f"{2**40 - PATHS} more ways" in lineage_report.html(graph, NOTHING)


NOTHING = Catalog(Settings("none"), {}, {}, {})


def test_a_model_keeps_what_it_was_built_of_while_that_is_built_anew() -> None:
    old = digest("x")
    requests = {"inner": request(adapter("b")), "outer": request(merge("inner", of=old))}
    digests = {"inner": digest("i"), "outer": digest("o")}

    known = ingredients("outer", Known(requests, digests, {old: request(adapter("a"))}))
    lost = ingredients("outer", Known(requests, digests))

    assert told(known)[-1] == ("adapter a@1", "+", 1.0, "+1 inner (an earlier build) > +1 a@1")
    assert "+1 merge inner  (an earlier build)  sha256:xxx" in lineage_report.text(known)
    # What its live build is made of would be a wrong answer.
    assert [label for label, *_ in told(lost)] == ["base base", "merge inner"]
    assert "(a build of which nothing is known any more)" in lineage_report.text(lost)


def test_a_forged_record_of_a_merge_in_itself_ends_all_the_same() -> None:
    known = live(
        one=request(merge("two", of=digest("t"))), two=request(merge("one", of=digest("o")))
    )

    graph = ingredients("one", known)

    assert [node.label for node in graph.nodes] == ["base base", "merge two", "merge one"]


def test_the_page_says_what_the_catalog_says_and_links_only_to_the_web() -> None:
    hostile = "<script>alert(1)</script>"
    known = Known(
        {"outer": request(merge("inner", -0.5)), "inner": request(adapter("a"))},
        revoked={("adapter", "a", 1): f"leaks {hostile}"},
    )
    origin = {"page": "https://example.org/a?b=1&c=<", "commit": "javascript:alert(1)"}
    one = Ingredient(
        "adapter", "a", 1, "base", digest("a"), "", hostile, license="mit", origin=origin
    )
    spec = MergeSpec("inner", "base", "ties", {}, (), 0, "float32", {}, description="The inner one")
    catalog = Catalog(Settings("some"), {one.id: one}, {"inner": spec}, {})

    html = lineage_report.html(ingredients("outer", known), catalog)

    row = html.partition('<th scope="row">adapter a</th>')[2].partition("</tr>")[0]
    row = row.replace("<span>", "").replace("</span>", "")
    cells = [cell.removesuffix("</td>") for cell in row.split("<td>")[1:]]
    assert cells[:4] == ["1", "− subtracted", "−0.5", "−0.5 inner &gt; +1 a@1"]
    assert cells[4] == "leaks &lt;script&gt;alert(1)&lt;/script&gt;"
    assert cells[5] == f"<code>{digest('a')}</code>"
    assert cells[6].split("<br>") == [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "Licence: mit",
        'page: <a href="https://example.org/a?b=1&amp;c=&lt;" rel="noreferrer">'
        "https://example.org/a?b=1&amp;c=&lt;</a>",
        "commit: javascript:alert(1)",
    ]
    assert "The inner one" in html
    assert "<script" not in html
    assert html.count("<svg ") == 1


def test_lineage_is_told_in_every_format_and_written_where_asked(repository: Repository) -> None:
    wanted = "both-skills = tiny-llama + 0.8·brief@2 + 1·formal@1"

    text = repository.run("lineage", "both-skills").out
    data = json.loads(repository.run("lineage", "both-skills", "--format", "json").out)
    svg = repository.run("lineage", "both-skills", "--format", "svg")
    html = repository.run("lineage", "both-skills", "--format", "html", "-o", "page.html")

    assert text.splitlines()[0] == f"{wanted}  -"
    assert data["format_version"] == 1
    assert not data["is_built"]
    assert [one["name"] for one in data["model"]["ingredients"]] == [
        "tiny-llama",
        "formal",
        "brief",
    ]
    assert [(one["name"], one["sign"]) for one in data["contains"]] == [
        ("tiny-llama", ""),
        ("brief", "+"),
        ("formal", "+"),
    ]
    assert svg.out.startswith("<svg ")
    assert svg.out.endswith("</svg>\n")
    assert (html.code, html.out) == (0, "")
    assert wanted in (repository.root / "page.html").read_text("utf-8")
    refused = repository.run("lineage", "both-skills", "--format", "svg", "-o", "no/where.svg")
    assert refused.code == 64
    assert "make its folder first" in refused.err
