"""Recall of an ingredient: the proposed edit applied by Git, and what the next plan then says."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import Repository

MERGES = "catalog/merges"
REASON = 'data "withdrawn": see #12'


@pytest.fixture
def using(repository: Repository) -> Repository:
    """Return the example with a merge of two terms, one of it alone, and one on top of that."""
    head = "kind: merge\nbase: tiny-llama\n"
    for name, recipe in {
        "pair": (
            "recipe:\n  method: task_arithmetic\n  terms:\n"
            "    - {adapter: formal, version: 1}   # stays\n"
            "    - {adapter: brief, version: 1, weight: -0.5}   # goes\n"
        ),
        "alone": "recipe: {method: task_arithmetic, terms: [{adapter: brief, version: 1}]}\n",
        "above": "recipe: {method: task_arithmetic, terms: [{merge: alone}]}\n",
        "between": (
            "recipe: {method: slerp, terms: [{adapter: brief, version: 1}, "
            "{adapter: formal, version: 1}], parameters: {t: 0.5}}\n"
        ),
    }.items():
        (repository.root / MERGES / f"{name}.yaml").write_text(f"name: {name}\n{head}{recipe}")
    repository.commit("more")
    return repository


def test_a_recall_revokes_and_takes_the_term_out_where_the_spec_allows_it(
    using: Repository,
) -> None:
    ran = using.run("recall", "adapter", "brief@1", "--reason", REASON)

    assert ran.code == 0
    told = ran.err.splitlines()
    assert "pair: rebuilt without adapter brief@1" in told
    assert "alone: unpublished: cannot do without it: nothing else is in it" in told
    (between,) = (line for line in told if line.startswith("between: "))
    assert between.startswith("between: unpublished: cannot do without it: recipe.terms: expected")
    assert not any(line.startswith("above") for line in told)
    assert using.git("status", "--short") == ""
    subprocess.run(["git", "apply"], cwd=using.root, input=ran.out, text=True, check=True)
    changed = using.git("status", "--short").split()[1::2]
    assert f"{MERGES}/pair.yaml" in changed
    assert f"{MERGES}/alone.yaml" not in changed
    assert using.git("diff", "--unified=0", f"{MERGES}/pair.yaml").splitlines()[5:] == [
        "-    - {adapter: brief, version: 1, weight: -0.5}   # goes"
    ]
    assert using.run("validate").code == 0
    plan = using.run("plan", "--against", "HEAD", "--format", "markdown").out
    rows = {line.split(" | ")[0]: line for line in plan.splitlines() if line.startswith("| ")}
    assert rows["| pair"].startswith("| pair | build | recipe")
    for model in ("alone", "between", "above"):
        assert rows[f"| {model}"].startswith(f"| {model} | unpublish | revoked: adapter brief")


def test_a_base_leaves_nothing_that_could_do_without_it(using: Repository) -> None:
    ran = using.run("recall", "base", "tiny-llama", "--reason", REASON)

    assert ran.out.count("diff") == 0
    assert ran.out.count("\n+") == 2  # the head of the diff, and the line that revokes
    assert "pair: unpublished: cannot do without it: it is the base" in ran.err
    assert "\n0 rebuilt without it, " in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adapter", "brief@9"), "no adapter brief@9\n  hint: did you mean brief@"),
        (("adapter", "brief"), "no adapter brief\n  hint: did you mean brief@"),
        (("base", "tiny-lama"), "no base tiny-lama\n  hint: did you mean tiny-llama"),
    ],
)
def test_what_is_not_there_cannot_be_recalled(
    using: Repository, arguments: tuple[str, ...], message: str
) -> None:
    ran = using.run("recall", *arguments, "--reason", "x")

    assert (ran.code, ran.out) == (64, "")
    assert message in ran.err


def test_a_recall_says_why(using: Repository) -> None:
    ran = using.run("recall", "adapter", "brief@1", "--reason", " ")

    assert ran.code == 64
    assert "expected a reason" in ran.err
