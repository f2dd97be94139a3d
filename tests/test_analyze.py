"""`registry analyze` on the example: what is told, as text, JSON and pictures, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ran, Repository
from tests.test_formats import check


def of_json(ran: Ran) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    data = json.loads(ran.out)
    check("analysis", data)
    analyses: list[dict[str, Any]] = data["analyses"]
    return analyses


def test_a_merge_is_looked_at_before_it_is_built(repository: Repository) -> None:
    ran = repository.run("analyze", "trimmed", "--plots", "pictures")

    assert ran.code == 0, ran.err
    first, *_, last = ran.out.splitlines()
    assert first == "trimmed = ties(tiny-llama; 1·brief@2, 1·formal@1)"
    assert last.startswith("2 terms, 4 tensors; signs conflict at ")
    assert last.endswith("% expected after a random drop to density 0.1")
    heads = [line.split()[0] for line in ran.out.splitlines() if line.startswith("  ")]
    assert heads == [
        *("term", "brief@2", "formal@1"),
        *("cosine", "brief@2", "formal@1"),
        *("same", "brief@2", "formal@1"),
        *("norm", "layer", "layer"),
        *("survives", "layer", "layer"),
    ]
    names = {path.name for path in (repository.root / "pictures").iterdir()}
    assert names == {
        f"{chart}.{form}"
        for chart in ("norms", "cosines", "sign-agreement", "survival")
        for form in ("png", "svg")
    }
    assert "8 pictures in pictures" in ran.err
    assert not (repository.root / "catalog/builds").exists()


def test_json_of_merges_and_of_operands_has_the_form_of_the_schema(repository: Repository) -> None:
    both, plain = of_json(
        repository.run("analyze", "both-skills", "average", "--format", "json", "--plots", "p")
    )
    assert [both["model"], plain["model"]] == ["both-skills", "average"]
    weights = {one["operand"]: one["weight"] for one in both["operands"]}
    assert weights == {"adapter formal@1": 1.0, "adapter brief@2": 0.8}
    assert (repository.root / "p/average/survival.svg").is_file()

    (operands,) = of_json(
        repository.run("analyze", "formal", "adapter", "brief@2", "--format", "json")
    )
    assert operands["model"] is operands["expression"] is operands["figures"]["total"]["result"]
    assert operands["figures"]["terms"] == ["adapter formal@1", "adapter brief@2"]
    cosine = operands["figures"]["total"]["cosines"][0][1]
    assert cosine == pytest.approx(both["figures"]["total"]["cosines"][0][1], rel=1e-6)
    assert operands["figures"]["density"] == 0.1


def test_a_recipe_that_drops_at_random_has_its_own_density_and_what_its_masks_leave(
    repository: Repository,
) -> None:
    recipe = "method: dare_ties\n  parameters: {density: 0.5}"
    repository.edit("catalog/merges/trimmed.yaml", "method: ties", recipe)

    (answer,) = of_json(repository.run("analyze", "trimmed", "--format", "json"))

    figures = answer["figures"]
    assert figures["density"] is None
    dare = figures["total"]["dare"]
    assert dare["expected"] == pytest.approx(figures["total"]["sign_conflict"] / 4, rel=1e-6)
    # 1,024 elements: five standard deviations of their binomial share.
    deviation = (dare["expected"] * (1 - dare["expected"]) / 1024) ** 0.5
    assert dare["realised"] == pytest.approx(dare["expected"], abs=5 * deviation)
    assert dare["realised"] != dare["expected"]


def test_a_merge_of_a_merge_needs_that_one_built(repository: Repository) -> None:
    (repository.root / "catalog/merges/upper.yaml").write_text(
        "kind: merge\nname: upper\nbase: tiny-llama\nrecipe:\n  method: task_arithmetic\n"
        "  terms:\n    - {merge: average}\n    - {adapter: brief, version: 1, weight: -0.5}\n"
    )

    ran = repository.run("analyze", "upper")
    assert ran.code == 1
    assert "upper: merge average is not built" in ran.err
    assert "run `registry sync average`" in ran.err

    assert repository.run("sync", "average").code == 0
    (answer,) = of_json(repository.run("analyze", "upper", "--format", "json"))
    assert sorted(answer["figures"]["terms"]) == ["adapter brief@1", "merge average"]


def second_base(repository: Repository) -> None:
    """Add the same base under another name, and an adapter of it."""
    catalog = repository.root / "catalog"
    for old, new in (("bases/tiny-llama", "bases/other"), ("adapters/brief", "adapters/foreign")):
        shutil.copytree(catalog / old, catalog / new)
    shutil.rmtree(catalog / "adapters/foreign/2")
    files: tuple[tuple[Path, str, str], ...] = (
        (catalog / "bases/other/base.yaml", "name: tiny-llama", "name: other"),
        (catalog / "adapters/foreign/1/adapter.yaml", "name: brief", "name: foreign"),
        (catalog / "adapters/foreign/1/adapter.yaml", "base: tiny-llama", "base: other"),
    )
    for path, before, after in files:
        repository.edit(path.relative_to(repository.root).as_posix(), before, after)


@pytest.mark.parametrize("command", ["analyze", "recommend"])
def test_operands_of_two_bases_are_refused_with_both_names(
    command: str, repository: Repository
) -> None:
    second_base(repository)

    ran = repository.run(command, "formal", "foreign")

    assert ran.code == 1
    assert (
        "expected one base, found tiny-llama of adapter formal@1 and other of adapter foreign@1"
        in ran.err
    )
    assert "only changes of one base can be compared or added" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["brief"], "brief may be adapter brief@1 or adapter brief@2"),
        (["formel"], "no merge, adapter or checkpoint formel\n  hint: did you mean formal"),
        (["average", "formal"], "expected merges, or adapters and checkpoints, found both"),
        (["formal", "formal@1"], "adapter formal@1 is named twice"),
        ([], "Missing argument"),
        (["formal", "--density", "0"], "0"),
    ],
)
def test_wrong_names_are_wrong_usage(
    repository: Repository, arguments: list[str], told: str
) -> None:
    ran = repository.run("analyze", *arguments)

    assert ran.code == 64, ran.err
    assert told in ran.err


def test_a_stack_has_nothing_to_compare(repository: Repository) -> None:
    (repository.root / "catalog/merges/tall.yaml").write_text(
        "kind: merge\nname: tall\nbase: tiny-llama\nrecipe:\n  method: passthrough\n"
        "  slices: [{layers: [0, 2]}, {adapter: formal, version: 1, layers: [1, 2]}]\n"
    )

    ran = repository.run("analyze", "tall")

    assert ran.code == 64
    assert "tall stacks layers: nothing is added up in it" in ran.err
    assert "`registry analyze adapter formal@1`" in ran.err
