"""Rendered plans in full."""

from __future__ import annotations

import pytest

from registry import report
from registry.plan import Action, Change, Plan, Reason
from schemas.expression import expression

PLAN = Plan(
    (
        Change(
            "helpful-minus-toxic",
            Action.BUILD,
            (Reason("recipe-changed", "recipe.terms[adapter toxic@3].weight", 0.4, 0.6),),
        ),
        Change(
            "legal",
            Action.BUILD,
            (Reason("input-changed", "adapter", "legal@4", "legal@5"),),
        ),
        Change("above", Action.MAYBE, (Reason("input-changed", "merge legal"),)),
        Change("old-demo", Action.NONE, (Reason("undeclared"),)),
        Change("fine", Action.NONE),
    )
)


def test_a_plan_reads_as_lines_with_the_sum_last() -> None:
    assert report.plan_text(PLAN).splitlines() == [
        "helpful-minus-toxic  build  recipe-changed: recipe.terms[adapter toxic@3].weight 0.4 -> 0.6",
        "legal                build  input-changed: adapter legal@4 -> legal@5",
        "above                maybe  input-changed: merge legal",
        "old-demo             kept   undeclared (kept; pass --prune to remove)",
        f"plan {PLAN.digest[:19]}…  2 to build, 1 to see after that, 1 kept, 1 up to date",
    ]


def test_an_empty_plan_says_that_there_is_nothing_to_do() -> None:
    plan = Plan((Change("fine", Action.NONE),))

    assert report.plan_text(plan) == f"plan {plan.digest[:19]}…  nothing to do: 1 up to date"


def term(name: str, weight: object, kind: str = "adapter") -> dict[str, object]:
    version = {"version": 1} if kind != "merge" else {}
    source = {"kind": kind, "name": name, "digest": "sha256:" + name[0] * 64, **version}
    return {"input": source, "weight": weight, "parameters": {}}


def recipe(method: str, *terms: dict[str, object], **parameters: object) -> dict[str, object]:
    return {"method": method, "terms": list(terms), "parameters": parameters}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (
            recipe(
                "task_arithmetic",
                term("a", -0.5),
                term("b", 1),
                **{"lambda": 1, "normalize": False},
            ),
            "base + 1·b@1 − 0.5·a@1",
        ),
        (
            recipe("task_arithmetic", term("a", -1), **{"lambda": 1, "normalize": False}),
            "base − 1·a@1",
        ),
        (
            recipe(
                "task_arithmetic", term("a", 1), term("b", 2), **{"lambda": 0.5, "normalize": True}
            ),
            "base + 0.5·(1·a@1 + 2·b@1) / Σw",
        ),
        (recipe("ties", term("a", -0.5), term("m", 1, "merge")), "ties(base; 1·m, −0.5·a@1)"),
        (recipe("linear", term("a", {"layers": [0.2, 0.5, 0.9]})), "linear(base; [0.2…0.9]·a@1)"),
    ],
)
def test_a_recipe_reads_as_an_expression(one: dict[str, object], expected: str) -> None:
    assert expression("base", one) == expected
