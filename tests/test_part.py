"""The part of a catalog that a change can touch plans what the whole catalog plans."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import catalog, comparison, part
from registry.errors import InvalidCatalog, UsageError
from registry.index import Index
from registry.plan import Action, Plan
from registry.request import declare
from registry.tree import RevisionTree, WorkingTree
from tests.conftest import Repository

MERGES = "catalog/merges"
SUITE = """\
kind: suite
name: texts
tasks:
  - {name: first, metric: exact_match, data: first.jsonl}
"""


def merge(name: str, term: str, more: str = "") -> str:
    return (
        f"kind: merge\nname: {name}\nbase: tiny-llama\nrecipe:\n  method: task_arithmetic\n"
        f"  terms:\n    - {term}\n{more}"
    )


@pytest.fixture
def many(repository: Repository) -> Repository:
    """Return the example with merges of merges, a suite, and some that are about none of these."""
    suite = repository.root / "catalog/suites/texts"
    suite.mkdir(parents=True)
    (suite / "suite.yaml").write_text(SUITE)
    (suite / "first.jsonl").write_text('{"id": "1", "prompt": "a", "expected": "b"}\n')
    for name, text in {
        "one": merge("one", "{adapter: brief, version: 1}"),
        "two": merge("two", "{merge: one, weight: 0.5}"),
        "three": merge("three", "{merge: two, weight: 0.5}"),
        "apart": merge("apart", "{adapter: formal, version: 1}"),
        "asked": merge("asked", "{adapter: formal, version: 1}", "evaluation: {suite: texts}\n"),
        # Names in what is no reference, and in spellings that only a parser sees through.
        "told": merge("told", "{adapter: formal, version: 1}", "description: brief and one\n"),
        "spelt": merge("spelt", '{"adapter": "\\x62rief", version: 1}'),
    }.items():
        (repository.root / MERGES / f"{name}.yaml").write_text(text)
    repository.commit("more")
    return repository


def whole(root: Path) -> Plan:
    """Return the plan from two whole catalogs: slower, and with nothing to get wrong."""
    index = Index(root)
    before = catalog.load(RevisionTree(root, "HEAD"), index)
    now = catalog.load(WorkingTree(root), index)
    return comparison.plan_since(declare(before.catalog), declare(now.catalog))


def rows(plan: Plan) -> dict[str, object]:
    return {
        change.model: (change.action, change.reasons)
        for change in plan.changes
        if change.action is not Action.NONE or change.reasons
    }


def edit_weight(many: Repository) -> None:
    many.edit(f"{MERGES}/one.yaml", "version: 1}", "version: 1, weight: 0.3}")


def edit_suite_data(many: Repository) -> None:
    many.edit("catalog/suites/texts/first.jsonl", '"a"', '"c"')


def add_merge(many: Repository) -> None:
    (many.root / MERGES / "new.yaml").write_text(merge("new", "{merge: three}"))


def remove_merge(many: Repository) -> None:
    (many.root / MERGES / "three.yaml").unlink()


def rename_merge(many: Repository) -> None:
    (many.root / MERGES / "three.yaml").unlink()
    (many.root / MERGES / "third.yaml").write_text(merge("third", "{merge: two, weight: 0.5}"))


def revoke(many: Repository) -> None:
    path = many.root / "catalog/adapters/brief/1/adapter.yaml"
    path.write_text(path.read_text("utf-8") + "revoked: {reason: data withdrawn}\n")


def add_version(many: Repository) -> None:
    shutil.copytree(many.root / "catalog/adapters/brief/1", many.root / "catalog/adapters/brief/3")
    many.edit("catalog/adapters/brief/3/adapter.yaml", "version: 1", "version: 3")
    many.edit(f"{MERGES}/one.yaml", "version: 1", "version: 3")


def edit_description(many: Repository) -> None:
    many.edit(f"{MERGES}/told.yaml", "brief and one", "something else")


def suspend(many: Repository) -> None:
    path = many.root / MERGES / "two.yaml"
    path.write_text(path.read_text("utf-8") + "suspend: {reason: not now}\n")


def commit_only(many: Repository) -> None:
    edit_weight(many)
    many.git("add", "-A")


def change_base(many: Repository) -> None:
    path = many.root / "catalog/bases/tiny-llama/base.yaml"
    path.write_text(re.sub("[0-9a-f]{64}", "0" * 64, path.read_text("utf-8")))


CHANGES = (
    edit_weight,
    edit_suite_data,
    add_merge,
    remove_merge,
    rename_merge,
    revoke,
    add_version,
    edit_description,
    suspend,
    commit_only,
    change_base,
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_part_plans_what_the_whole_catalog_plans(
    many: Repository, change: Callable[[Repository], None]
) -> None:
    change(many)

    found = part.since(many.root, Index(many.root), "HEAD")
    before, now = found.before.catalog, found.now.catalog
    made = comparison.plan_since(declare(before), declare(now), found.others)

    expected = whole(many.root)
    assert rows(made) == rows(expected)
    assert {one.model for one in made.changes} == {one.model for one in expected.changes}


def test_what_a_change_cannot_touch_is_left_out(many: Repository) -> None:
    edit_weight(many)

    found = part.since(many.root, Index(many.root), "HEAD")

    assert set(found.now.catalog.merges) == {"one", "two", "three"}
    assert {one.name for one in found.now.catalog.ingredients.values()} == {"brief", "tiny-llama"}
    assert {"apart", "asked", "told"} <= set(found.others)


def test_an_escaped_name_is_a_reference_too(many: Repository) -> None:
    revoke(many)

    found = part.since(many.root, Index(many.root), "HEAD")

    assert {"one", "two", "three", "spelt"} <= set(found.now.catalog.merges)
    assert "told" in found.others


def test_a_reference_to_what_was_removed_is_refused_with_all_problems(many: Repository) -> None:
    shutil.rmtree(many.root / "catalog/adapters/brief")
    (many.root / "catalog/strange.txt").write_text("what\n")

    with pytest.raises(InvalidCatalog) as caught:
        part.since(many.root, Index(many.root), "HEAD")

    files = {problem.file for problem in caught.value.problems}
    assert {f"{MERGES}/one.yaml", f"{MERGES}/spelt.yaml", "catalog/strange.txt"} <= files


def test_nothing_is_compared_with_an_unknown_revision(many: Repository) -> None:
    with pytest.raises(UsageError, match="expected a revision"):
        part.since(many.root, Index(many.root), "nowhere")


def test_the_ingredients_at_a_revision_are_read_without_the_merges(many: Repository) -> None:
    found = part.ingredients(many.root, Index(many.root), "HEAD")

    assert {one.name for one in found.catalog.ingredients.values()} >= {"brief", "formal"}
    assert not found.catalog.merges


def affected(many: Repository) -> dict[str, tuple[str, dict[str, str]]]:
    found = part.since(many.root, Index(many.root), "HEAD")
    before, now = found.before.catalog, found.now.catalog
    told = comparison.affected(before, now, declare(now).values())
    return {one.label: (one.change, {use.model: use.how for use in one.users}) for one in told}


def test_a_revoked_ingredient_is_told_with_every_model_that_contains_it(many: Repository) -> None:
    (many.root / MERGES / "minus.yaml").write_text(merge("minus", "{merge: two, weight: -0.5}"))
    twice = "{merge: one}\n    - {adapter: brief, version: 1, weight: -2}"
    (many.root / MERGES / "twice.yaml").write_text(merge("twice", twice))
    revoke(many)

    assert affected(many) == {
        "adapter brief@1": (
            "revoked: data withdrawn",
            {
                "formal-not-brief": "−0.5",
                "one": "+1",
                "two": "+0.5 by way of one",
                "three": "+0.25 by way of two > one",
                "minus": "−0.25 by way of two > one",
                "spelt": "+1",
                "twice": "+1 by way of one and −2",
            },
        )
    }


def test_a_new_version_is_told_with_those_that_do_not_have_it(many: Repository) -> None:
    add_version(many)

    # `one` has it, and so have `two` and `three`; `spelt` and the example's four have others.
    told = affected(many)
    assert told.keys() == {"adapter brief@3"}
    change, users = told["adapter brief@3"]
    assert change == "added; 5 models have another version"
    assert set(users) == {"one", "two", "three"}


def test_a_removed_version_another_digest_and_an_end_of_a_revocation_are_told(
    many: Repository,
) -> None:
    revoke(many)
    shutil.copytree(many.root / "catalog/adapters/brief/1", many.root / "catalog/adapters/brief/4")
    many.edit("catalog/adapters/brief/4/adapter.yaml", "version: 1", "version: 4")
    many.commit("revoked")
    shutil.rmtree(many.root / "catalog/adapters/brief/4")
    many.edit("catalog/adapters/brief/1/adapter.yaml", "revoked: {reason: data withdrawn}\n", "")
    change_base(many)

    told = affected(many)

    assert told["adapter brief@4"] == ("removed", {})
    assert told["adapter brief@1"][0] == "no longer revoked"
    change, users = told["base tiny-llama"]
    assert change.startswith("digest sha256:")
    assert change.endswith("-> sha256:" + "0" * 64)
    assert users["three"] == "as its base"


def test_a_changed_description_affects_nobody(many: Repository) -> None:
    path = many.root / "catalog/adapters/brief/1/adapter.yaml"
    path.write_text(path.read_text("utf-8") + "license: mit\n")

    assert affected(many) == {}
