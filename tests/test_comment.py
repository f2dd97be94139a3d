"""A pull request's comment in full, what it leaves out when long, and hostile names in it."""

from __future__ import annotations

from typing import Any

from markdown_it import MarkdownIt

from registry import comment
from registry.comment import Review
from registry.comparison import Affected, Use
from registry.estimate import Estimate
from registry.plan import Action, Change, Plan, Reason
from registry.request import Declaration
from registry.spec import Gate


def declaration(model: str, *, gates: dict[str, Gate] | None = None) -> Declaration:
    terms = [
        {"input": {"kind": "adapter", "name": name, "version": 1}, "weight": weight}
        for name, weight in (("sql", 1.0), ("shout", -0.7))
    ]
    recipe = {
        "method": "task_arithmetic",
        "parameters": {"lambda": 1, "normalize": False},
        "terms": terms,
    }
    return Declaration(
        model=model,
        request={"base": {"name": "small"}, "recipe": recipe},
        upstream=("helpdesk",),
        suite="office",
        suite_request=None,
        gates=gates or {},
        suspend="",
        revoked="",
    )


WEIGHT = Reason("recipe-changed", "recipe.terms[adapter shout@1].weight", -0.5, -0.7)
GATES = {"sql": Gate(retention=0.9), "shout": Gate(at_most=0.1, no_worse_than="live")}
REVIEW = Review(
    plan=Plan(
        (
            Change("office", Action.BUILD, (WEIGHT,), "sha256:" + "1" * 64),
            Change("above", Action.MAYBE, (Reason("input-changed", "merge office"),)),
            Change("helpdesk", Action.UNPUBLISH, (Reason("revoked", "adapter shout@1: no"),)),
            Change("old-demo", Action.NONE, (Reason("undeclared"),)),
            Change("fine", Action.NONE),
        )
    ),
    declared={"office": declaration("office", gates=GATES), "above": declaration("above")},
    estimates={
        "office": Estimate(1_234_000_000, 270_500_000, 12.3, 812_000_000, 3),
        "above": Estimate(270_500_000, None, 150.0, 812_000_000, 3),
    },
    affected=(
        Affected(
            "adapter shout@1", "revoked: no", (Use("helpdesk", "−0.5"), Use("office", "−0.7"))
        ),
        Affected("adapter new@1", "added"),
    ),
    since="origin/main",
)


def test_a_comment_has_counts_then_tables_then_folded_details() -> None:
    assert comment.text(REVIEW) == (
        "<!-- registry plan -->\n\n"
        "### Merge plan: 1 to build, 1 to unpublish, 1 to see after that, 1 kept, 1 up to date\n\n"
        "2 builds together: 1.5 GB → –, 2.7 min one after the other.\n\n"
        "| model | action | why | terms | read → write | takes | gates |\n"
        "|---|---|---|---|---|---|---|\n"
        "| office | build | recipe\\-changed: recipe\\.terms\\[adapter shout&#64;1\\]\\.weight \\-0\\.5 \\-&gt; \\-0\\.7"
        " | `small + 1·sql@1 − 0.7·shout@1` | 1.23 GB → 270 MB | 12 s, 812 MB"
        " | shout ≤ 0\\.1; shout no worse than live; sql keeps 0\\.9 of the best term |\n"
        "| above | maybe | input\\-changed: merge office | `small + 1·sql@1 − 0.7·shout@1` | 270 MB → – | 2.5 min, 812 MB |  |\n"
        "| helpdesk | unpublish | revoked: adapter shout&#64;1: no |  |  |  |  |\n"
        "| old\\-demo | kept | undeclared \\(kept; pass \\-\\-prune to remove\\) |  |  |  |  |\n\n"
        "| ingredient | change | models that contain it |\n"
        "|---|---|---|\n"
        "| adapter shout&#64;1 | revoked: no | helpdesk (−0\\.5), office (−0\\.7) |\n"
        "| adapter new&#64;1 | added | none |\n\n"
        "<details><summary><b>office</b>: build</summary>\n\n"
        "`small + 1·sql@1 − 0.7·shout@1`\n\n"
        "- recipe\\-changed: recipe\\.terms\\[adapter shout&#64;1\\]\\.weight \\-0\\.5 \\-&gt; \\-0\\.7\n"
        "- made of merge helpdesk\n"
        "- evaluated on suite office, gates: shout ≤ 0\\.1; shout no worse than live; sql keeps 0\\.9 of the best term\n"
        f"- build key `sha256:{'1' * 64}`\n\n"
        "</details>\n\n"
        "<details><summary><b>above</b>: maybe</summary>\n\n"
        "`small + 1·sql@1 − 0.7·shout@1`\n\n"
        "- input\\-changed: merge office\n"
        "- made of merge helpdesk\n"
        "- evaluated on suite office, no gates\n\n"
        "</details>\n\n"
        "<details><summary><b>helpdesk</b>: unpublish</summary>\n\n"
        "- revoked: adapter shout&#64;1: no\n\n"
        "</details>\n\n"
        "<details><summary><b>old-demo</b>: none</summary>\n\n"
        "- undeclared \\(kept; pass \\-\\-prune to remove\\)\n\n"
        "</details>\n\n"
        f"plan `{REVIEW.plan.digest}`, compared with `origin/main`  \n"
        "Seconds and memory are those of 3 builds before, by bytes read, without evaluation. `–`: not known.\n"
    )


def test_a_plan_of_five_thousand_changes_stays_short_enough_and_counts_the_rest() -> None:
    many = tuple(
        Change(
            f"model-{number:04}", Action.BUILD, (Reason("recipe-changed", "a", "<x>", "y" * 900),)
        )
        for number in range(5000)
    )
    users = tuple(Use(f"model-{number:04}", "+1") for number in range(300))
    affected = [Affected(f"adapter skill-{n}@1", "revoked: no", users) for n in range(50)]

    text = comment.text(Review(Plan(many), affected=affected))

    assert text.startswith(
        "<!-- registry plan -->\n\n### Merge plan: 5000 to build, 0 up to date\n"
    )
    assert 50_000 < len(text) <= 60_000
    rows = text.count("\n| model\\-")
    assert f"| … {5000 - rows} more: run `registry plan` |" in text
    assert "| adapter skill\\-0&#64;1 | revoked: no | model\\-0000 (+1), " in text.replace(
        "\\+", "+"
    )
    assert "280 more |" in text
    assert "more: run `registry impact` |" in text
    assert "builds together" not in text  # nothing is known of them
    assert text.endswith("`–`: not known.\n")
    assert text.count("<details>") == text.count("</details>") > 0


def rendered(review: Review) -> str:
    parser: Any = MarkdownIt("commonmark", {"html": True}).enable("table")
    return str(parser.render(comment.text(review)))


def test_nothing_that_a_catalog_says_becomes_markup_a_link_or_a_mention() -> None:
    hostile = "</details><img src=x> [a](http://b) @team `c` | d\n# e <!-- www.f.org ![g](h)"
    plan = Plan((Change("x", Action.UNPUBLISH, (Reason("revoked", hostile),)),))
    affected = (Affected("adapter a@1", f"revoked: {hostile}", (Use("x", "−1"),)),)

    shown = rendered(Review(plan, affected=affected))

    assert shown.count("<details>") == shown.count("</details>") == 1
    assert "<img" not in shown
    assert "<a " not in shown
    assert "<h1>" not in shown
    assert shown.count("<tr>") == 4
    assert shown.count("&lt;/details&gt;&lt;img src=x&gt;") == 3
    # Entities that a code host's search for mentions and addresses does not see.
    assert "@team" not in comment.text(Review(plan, affected=affected))
    assert "http://" not in comment.text(Review(plan, affected=affected))


def test_a_comment_without_changes_says_so_and_has_no_table() -> None:
    plan = Plan((Change("fine", Action.NONE),))

    assert comment.text(Review(plan)) == (
        "<!-- registry plan -->\n\n### Merge plan: nothing to do: 1 up to date\n\n"
        f"plan `{plan.digest}`\n"
    )
