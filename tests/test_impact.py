"""Which models contain an ingredient: live, as declared, or both; and what cannot be told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from registry import impact, impact_report
from registry.errors import UsageError
from registry.impact import Impact
from registry.lineage import Known, Node
from tests.conftest import Repository
from tests.graphs import adapter, declared, digest, live, merge, request

INNER = request(adapter("a", -0.5))


def of(reference: str, built: Known, wanted: Known, kind: str = "adapter") -> Impact:
    world = impact.look(built, wanted)
    (node,) = impact.find(kind, reference, world)
    return impact.impact(node, world)


def rows(found: Impact) -> list[tuple[str, str, str, float | None]]:
    return [
        (use.model, way.where, way.path.sign, way.path.weight)
        for use in found.uses
        for way in use.ways
    ]


def test_the_spread_of_an_ingredient_is_the_number_of_models_in_its_impact() -> None:
    older = request(adapter("a"), adapter("b", 2.0))
    built = live(
        inner=INNER,
        outer=request(merge("inner", -1.0, of=digest("i")), adapter("a")),
        stale=request(merge("inner", 1.0, of=digest("x"))),
    )
    built = replace(built, older={digest("x"): older})
    wanted = declared(inner=INNER, outer=request(merge("inner", -1.0)), new=request(adapter("c")))
    world = impact.look(built, wanted)
    unused = Node("checkpoint", "spare", 1)

    found = impact.spread(world, [unused])

    assert [(one.node.label, one.live, one.declared) for one in found] == [
        ("base base", 3, 3),
        ("adapter a@1", 3, 2),
        ("adapter b@1", 1, 0),
        ("adapter c@1", 0, 1),
        ("checkpoint spare@1", 0, 0),
    ]
    for one in found:
        uses = impact.impact(one.node, world).uses
        assert one.live == sum(use.live is not None for use in uses)
        assert one.declared == sum(use.declared is not None for use in uses)


def test_what_is_live_and_what_is_declared_are_told_apart() -> None:
    built = live(
        inner=INNER,
        gone=request(adapter("a")),
        outer=request(merge("inner", -1.0, of=digest("i"))),
        changed=request(adapter("a", 1.0)),
    )
    wanted = declared(
        inner=INNER,
        outer=request(merge("inner", -1.0)),
        changed=request(adapter("a", 0.5)),
        new=request(merge("outer", 2.0)),
    )

    found = of("a@1", built, wanted)

    assert rows(found) == [
        ("changed", "live", "+", 1.0),
        ("changed", "declared", "+", 0.5),
        ("gone", "live", "+", 1.0),
        ("inner", "both", "-", -0.5),
        ("outer", "both", "+", 0.5),
        ("new", "declared", "+", 1.0),
    ]
    assert [use.where for use in found.uses] == ["both", "live", "both", "both", "declared"]
    assert impact_report.text([found], []).splitlines() == [
        "adapter a@1  sha256:aaaaaaaaaaaa…",
        "  model    where     sign  weight  by way of",
        "  changed  live      +     +1      +1 a@1",
        "  changed  declared  +     +0.5    +0.5 a@1",
        "  gone     live      +     +1      +1 a@1",
        "  inner    both      -     -0.5    -0.5 a@1",
        "  outer    both      +     +0.5    -1 inner > -0.5 a@1",
        "  new      declared  +     +1      +2 outer > -1 inner > -0.5 a@1",
        "adapter a@1: in 5 models: 4 live, 4 declared",
    ]


def test_the_drawing_notes_at_an_edge_what_is_only_live_or_only_declared() -> None:
    built = live(inner=INNER, gone=request(adapter("a")))
    wanted = declared(inner=INNER, new=request(merge("inner")))

    svg = impact_report.drawing([of("a@1", built, wanted)])

    labels = (">−0.5</text>", ">+1 live</text>", ">+1 declared</text>")
    assert [svg.count(label) for label in labels] == [1, 1, 1]


def test_the_same_weight_under_another_lambda_is_another_edge() -> None:
    built = live(one=request(adapter("a"), factor=-1.0))
    wanted = declared(one=request(adapter("a")))

    found = of("a@1", built, wanted)

    assert rows(found) == [("one", "live", "-", -1.0), ("one", "declared", "+", 1.0)]
    svg = impact_report.drawing([found])
    assert [svg.count(label) for label in (">+1 · λ live<", ">+1 declared<")] == [1, 1]


def test_live_and_declared_that_contain_each_other_are_drawn_all_the_same() -> None:
    built = live(one=request(adapter("a")), two=request(merge("one", of=digest("o"))))
    wanted = declared(two=request(adapter("a")), one=request(merge("two")))

    svg = impact_report.drawing([of("a@1", built, wanted)])

    assert svg.count('class="box"') == 3


def test_of_more_ways_than_are_told_each_is_still_told_right() -> None:
    names = [f"m{number:02}" for number in range(30)]
    inner = {name: request(adapter("a")) for name in names}
    pinned = [merge(name, of=digest("m")) for name in names]
    # A record has its terms in another order than the spec, and here three terms less.
    built = live(**inner, top=request(*pinned[:2:-1]))
    wanted = declared(**inner, top=request(*map(merge, names)))

    use = of("a@1", built, wanted).uses[-1]

    wheres = {way.path.names[1]: way.where for way in use.ways}
    expected = {name: "declared" if name in names[:3] else "both" for name in names}
    assert wheres == {name: expected[name] for name in wheres}
    assert len(use.ways) + use.more == 30


def test_a_base_is_named_once_by_every_model() -> None:
    wanted = declared(inner=INNER, outer=request(merge("inner")))

    found = of("base", Known({}), wanted, kind="base")

    assert rows(found) == [("inner", "declared", "", None), ("outer", "declared", "", None)]


def test_an_earlier_build_inside_a_live_model_still_counts() -> None:
    old = digest("x")
    requests = {"inner": request(adapter("b")), "outer": request(merge("inner", of=old))}
    digests = {"inner": digest("i"), "outer": digest("o")}
    wanted = declared(inner=request(adapter("b")), outer=request(merge("inner")))
    kept = Known(requests, digests, {old: request(adapter("a"))})

    assert rows(of("a@1", kept, wanted)) == [("outer", "live", "+", 1.0)]
    assert [use.model for use in of("inner", kept, wanted, "merge").uses] == ["outer"]
    assert impact.unknown(impact.look(kept, wanted)) == []

    lost = impact.look(Known(requests, digests), wanted)
    (node,) = impact.find("adapter", "b", lost)
    text = impact_report.text([impact.impact(node, lost)], impact.unknown(lost))
    line = "  not known: outer holds an earlier build of merge inner sha256:xxxxxxxxxxxx…, of which"
    assert f"{line} nothing is known any more" in text.splitlines()


def test_without_a_version_every_version_is_meant() -> None:
    wanted = declared(one=request(adapter("a", version=2)), two=request(adapter("a", version=10)))
    world = impact.look(Known({}), wanted)

    found = impact.find("adapter", "a", world, [Node("adapter", "a", 1)])

    assert [node.label for node in found] == ["adapter a@1", "adapter a@2", "adapter a@10"]
    html = impact_report.html([impact.impact(node, world) for node in found], [])
    assert "<h1>adapter a, every version: which models contain it</h1>" in html
    assert html.count("In no model.") == 1


@pytest.mark.parametrize(
    ("kind", "name", "message", "hint"),
    [
        ("adapter", "formel", "no adapter formel", "did you mean formal"),
        ("adapter", "formal@3", "no adapter formal@3, but adapter formal@1", ""),
        ("merge", "formal", "no merge formal", ""),
    ],
)
def test_what_does_not_exist_is_wrong_usage(kind: str, name: str, message: str, hint: str) -> None:
    world = impact.look(Known({}), declared(one=request(adapter("formal"))))

    with pytest.raises(UsageError) as error:
        impact.find(kind, name, world)

    assert (error.value.message, error.value.hint) == (message, hint)


def test_impact_of_a_revoked_adapter_gives_the_reason(repository: Repository) -> None:
    file = "catalog/adapters/brief/2/adapter.yaml"
    path = repository.root / file
    path.write_text(
        path.read_text("utf-8") + 'revoked: {reason: "learnt from\\n\\e <private> mail"}\n'
    )

    text = repository.run("impact", "adapter", "brief@2")
    data = json.loads(repository.run("impact", "adapter", "brief", "--format", "json").out)
    html = repository.run("impact", "adapter", "brief@2", "--format", "html", "-o", "out.html")

    head = "adapter brief@2  (REVOKED: learnt from <private> mail)  sha256:"
    assert text.out.startswith(head)
    assert text.out.splitlines()[-1] == "adapter brief@2: in 3 models: 0 live, 3 declared"
    assert [one["version"] for one in data["ingredients"]] == [1, 2]
    assert data["ingredients"][1]["revoked"] == "learnt from\n\x1b <private> mail"
    models = {one["model"]: one for one in data["ingredients"][0]["models"]}
    assert models["formal-not-brief"]["sign"] == {"live": None, "declared": "-"}
    assert models["formal-not-brief"]["paths"][0]["weights"] == [-0.5]
    assert html.code == 0
    page = (repository.root / "out.html").read_text("utf-8")
    assert "learnt from &lt;private&gt; mail" in page
    assert "<private>" not in page


def test_impact_of_nothing_is_wrong_usage(repository: Repository) -> None:
    unknown = repository.run("impact", "adapter", "brif")
    wrong = repository.run("impact", "suite", "office")

    assert (unknown.code, unknown.out) == (64, "")
    assert "no adapter brif\n  hint: did you mean brief" in unknown.err
    assert wrong.code == 64


def test_a_record_that_cannot_be_read_is_said_and_not_taken_for_nothing(
    repository: Repository,
) -> None:
    builds = repository.root / "catalog/builds"
    builds.mkdir(exist_ok=True)
    (builds / "both-skills.json").write_text("{}")

    down = repository.run("impact", "adapter", "formal")
    data = json.loads(repository.run("impact", "adapter", "formal", "--format", "json").out)
    up = repository.run("lineage", "both-skills")

    assert "  not known: both-skills has a record that cannot be read" in down.out.splitlines()
    assert data["unknown"] == [{"model": "both-skills", "holds": None}]
    assert up.code == 0
    assert "both-skills: its record cannot be read; this is what is declared" in up.err
