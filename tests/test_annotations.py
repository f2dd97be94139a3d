"""Problems on the lines of a pull request, in the forms that the code hosts document."""

from __future__ import annotations

import json

from registry import annotations
from registry.errors import Problem

WEIGHT = Problem(
    "catalog/merges/a,b.yaml", 14, 15, "recipe.terms[1].weight", "expected a number: 50%", "try 0.5"
)
COPY = Problem("schemas/merge.schema.json", 0, 0, "", "differs", is_warning=True)
HOSTILE = Problem("a.yaml", 1, 1, "x", "found\n::error file=y::z\r", "")


def test_github_gets_one_command_for_each_problem() -> None:
    assert annotations.github([WEIGHT, COPY]).splitlines() == [
        "::error file=catalog/merges/a%2Cb.yaml,title=recipe.terms[1].weight,line=14,col=15"
        "::expected a number: 50%25%0Ahint: try 0.5",
        "::warning file=schemas/merge.schema.json,title=registry validate::differs",
    ]


def test_a_file_cannot_give_github_commands_of_its_own() -> None:
    assert annotations.github([HOSTILE]) == (
        "::error file=a.yaml,title=x,line=1,col=1::found%0A::error file=y::z%0D"
    )


def test_gitlab_gets_a_code_quality_report() -> None:
    issues = json.loads(annotations.gitlab([WEIGHT, COPY]))

    assert issues[0] == {
        "description": "recipe.terms[1].weight: expected a number: 50% (hint: try 0.5)",
        "check_name": "registry validate",
        "fingerprint": issues[0]["fingerprint"],
        "severity": "major",
        "location": {"path": "catalog/merges/a,b.yaml", "lines": {"begin": 14}},
    }
    assert issues[1]["severity"] == "minor"
    assert issues[1]["location"]["lines"]["begin"] == 1
    assert len({issue["fingerprint"] for issue in issues}) == 2


def test_nothing_wrong_is_an_empty_report() -> None:
    assert json.loads(annotations.gitlab([])) == []
    assert annotations.github([]) == ""
