"""Cross-checks on real folders: whole messages, all problems at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from registry import catalog, crosscheck
from registry.errors import InvalidCatalog
from registry.index import Index
from registry.tree import RevisionTree, WorkingTree
from tests.conftest import Repository

MERGE = "catalog/merges/both-skills.yaml"


def problems(repository: Repository) -> list[str]:
    """Return what `registry validate` says of the working tree."""
    try:
        catalog.load(WorkingTree(repository.root), Index(repository.root))
    except InvalidCatalog as error:
        return [problem.text() for problem in error.problems]
    return []


def write_merge(repository: Repository, name: str, recipe: str, rest: str = "") -> None:
    text = f"kind: merge\nname: {name}\nbase: tiny-llama\nrecipe:\n{recipe}{rest}"
    (repository.root / f"catalog/merges/{name}.yaml").write_text(text)


def test_the_example_has_no_problem(repository: Repository) -> None:
    assert problems(repository) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "adapter: formal",
            "adapter: fromal",
            f"{MERGE}:8:17: recipe.terms[0].adapter: no adapter fromal\n  hint: did you mean formal",
        ),
        (
            "adapter: brief, version: 2",
            "adapter: brief, version: 7",
            f"{MERGE}:9:33: recipe.terms[1].version: no adapter brief@7\n"
            "  hint: versions of brief: 1, 2",
        ),
        (
            "base: tiny-llama",
            "base: tiny-lama",
            f"{MERGE}:4:7: base: no base tiny-lama\n  hint: did you mean tiny-llama",
        ),
        (
            "name: both-skills",
            "name: both",
            f"{MERGE}:3:7: name: expected both-skills, the name of its file, found both",
        ),
    ],
)
def test_a_wrong_reference_is_told_with_its_place(
    repository: Repository, old: str, new: str, expected: str
) -> None:
    repository.edit(MERGE, old, new)

    assert expected in problems(repository)


def test_a_term_may_appear_once(repository: Repository) -> None:
    write_merge(
        repository,
        "twice",
        "  method: linear\n  terms:\n"
        "    - {adapter: formal, version: 1}\n    - {adapter: formal, version: 1}\n",
    )

    assert problems(repository) == [
        "catalog/merges/twice.yaml:8:17: recipe.terms[1].adapter: adapter formal@1 stands in "
        "terms[0] already\n  hint: add the weights up in one term"
    ]


def test_a_cycle_is_told_with_its_path(repository: Repository) -> None:
    for name, other in (("left", "right"), ("right", "left")):
        write_merge(repository, name, f"  method: task_arithmetic\n  terms: [{{merge: {other}}}]\n")

    assert problems(repository) == [
        "catalog/merges/right.yaml:6:19: recipe.terms[0].merge: these merges are made of each "
        "other: left -> right -> left"
    ]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            "  method: linear\n  terms: [{adapter: formal, version: 1, weight: -1}]\n",
            "6:49: recipe.terms[0].weight: expected no negative weight (linear averages), found "
            "-1\n  hint: use task_arithmetic to subtract",
        ),
        (
            "  method: linear\n  terms: [{adapter: formal, version: 1, weight: 0}]\n",
            "6:10: recipe.terms: expected a sum of weights above 0, found 0",
        ),
        (
            "  method: task_arithmetic\n  parameters: {normalize: true}\n"
            "  terms: [{adapter: formal, version: 1, weight: -1}]\n",
            "7:49: recipe.terms[0].weight: expected no negative weight (normalize divides by the "
            "sum), found -1\n  hint: normalize: false",
        ),
        (
            "  method: ties\n  parameters: {scope: model, density: {layers: [0.1, 0.2]}}\n"
            "  terms: [{adapter: formal, version: 1}]\n",
            "6:39: recipe.parameters.density: expected a number with scope model, found a "
            "schedule\n  hint: use scope: tensor, or one density",
        ),
        (
            "  method: linear\n"
            "  terms: [{adapter: formal, version: 1, parameters: {density: 0.5}}]\n",
            "6:63: recipe.terms[0].parameters.density: linear has no parameter density\n"
            "  hint: remove it, or choose another method",
        ),
    ],
)
def test_weights_and_parameters_that_make_no_sense_are_refused(
    repository: Repository, recipe: str, expected: str
) -> None:
    write_merge(repository, "odd", recipe)

    assert problems(repository) == [f"catalog/merges/odd.yaml:{expected}"]


def test_gates_need_a_task_and_something_to_compare_with(repository: Repository) -> None:
    folder = repository.root / "catalog/suites/small"
    folder.mkdir(parents=True)
    (folder / "suite.yaml").write_text(
        "kind: suite\nname: small\ntasks:\n"
        "  - {name: words, metric: contains, data: words.jsonl}\n"
        "  - {name: loss, metric: perplexity, data: words.jsonl}\n"
    )
    (folder / "words.jsonl").write_text('{"id": "a", "prompt": "p", "expected": "e"}\n')
    evaluation = (
        "evaluation:\n  suite: small\n  gates:\n"
        "    word: {at_least: 1}\n    words: {retention: 0.9}\n    loss: {retention: 0.9}\n"
    )
    recipe = "  method: task_arithmetic\n  terms: [{adapter: formal, version: 1, weight: -1}]\n"
    write_merge(repository, "gated", recipe, evaluation)

    file = "catalog/merges/gated.yaml"
    assert problems(repository) == [
        f"{file}:10:11: evaluation.gates.word: suite small has no task word\n"
        "  hint: did you mean words",
        f"{file}:11:24: evaluation.gates.words.retention: expected an adapter or checkpoint of "
        "positive weight to compare with\n  hint: use at_least",
        f"{file}:12:23: evaluation.gates.loss.retention: retention is a share of a score, and "
        "perplexity is better when lower\n  hint: use at_most",
    ]


def test_what_a_clock_measures_is_gated_by_a_number_alone(repository: Repository) -> None:
    folder = repository.root / "catalog/suites/small"
    folder.mkdir(parents=True)
    (folder / "suite.yaml").write_text(
        "kind: suite\nname: small\ntasks:\n"
        "  - {name: wait, metric: latency, data: words.jsonl}\n"
        "  - {name: speed, metric: throughput, data: words.jsonl}\n"
    )
    (folder / "words.jsonl").write_text('{"id": "a", "prompt": "p"}\n')
    evaluation = (
        "evaluation:\n  suite: small\n  gates:\n"
        "    wait: {no_worse_than: live}\n    speed: {at_least: 1, retention: 0.9}\n"
        "    mean: {at_least: 0.5}\n"
        "tune:\n  tasks: {speed: 1}\n"
    )
    recipe = "  method: task_arithmetic\n  terms: [{adapter: formal, version: 1}]\n"
    write_merge(repository, "gated", recipe, evaluation)

    file = "catalog/merges/gated.yaml"
    assert problems(repository) == [
        f"{file}:10:27: evaluation.gates.wait.no_worse_than: latency is measured: no two runs and "
        "no two machines agree\n  hint: use at_most",
        f"{file}:11:37: evaluation.gates.speed.retention: throughput is measured: no two runs and "
        "no two machines agree\n  hint: use at_least",
        f"{file}:12:11: evaluation.gates.mean: a mean is of shares and perplexities, and the suite "
        "has none\n  hint: gate a task",
        f"{file}:14:10: tune.tasks: expected a task of weight above 0, found none\n"
        "  hint: tasks: none that a search can go by",
        f"{file}:14:18: tune.tasks.speed: expected a task that a model's numbers decide, throughput "
        "is measured\n  hint: remove it",
    ]


def test_samples_are_at_least_k(repository: Repository) -> None:
    folder = repository.root / "catalog/suites/small"
    folder.mkdir(parents=True)
    (folder / "suite.yaml").write_text(
        "kind: suite\nname: small\ntasks:\n"
        "  - name: code\n    metric: python_pass_at_k\n    data: code.jsonl\n"
        "    options: {run_untrusted_code: true, k: 3, samples: 2}\n"
    )
    (folder / "code.jsonl").write_text('{"id": "a", "prompt": "p", "expected": {}}\n')

    assert problems(repository) == [
        "catalog/suites/small/suite.yaml:7:56: tasks[0].options.samples: expected at least k, 3, "
        "found 2"
    ]


def test_data_lines_of_a_suite_are_checked(repository: Repository) -> None:
    folder = repository.root / "catalog/suites/small"
    folder.mkdir(parents=True)
    (folder / "suite.yaml").write_text(
        "kind: suite\nname: small\ntasks: [{name: words, metric: contains, data: words.jsonl}]\n"
    )
    lines = ['{"id": "a", "prompt": "p"}', "{oops", '{"id": "a", "prompt": 3, "x": 1}']
    (folder / "words.jsonl").write_text("\n".join([*lines, '{"id": "a", "prompt": "q"}', ""]))

    file = "catalog/suites/small/words.jsonl"
    assert problems(repository) == [
        f"{file}:2:1: expected a JSON object on one line",
        f"{file}:3:1: prompt: expected a text",
        f"{file}:3:1: x: unknown field",
        f"{file}:4:1: id: expected an id of its own, found a of line 1 again",
    ]


def test_stray_files_links_and_device_names_are_refused(repository: Repository) -> None:
    merges = repository.root / "catalog/merges"
    shutil.copy(merges / "average.yaml", merges / "average.yml")
    (merges / "link.yaml").symlink_to("average.yaml")
    (merges / ".hidden").write_text("")
    (merges / "README.md").write_text("")
    text = (merges / "average.yaml").read_text().replace("name: average", "name: con")
    (merges / "con.yaml").write_text(text)

    assert problems(repository) == [
        "catalog/merges/average.yml: nothing is expected at this path\n"
        "  hint: rename it to catalog/merges/average.yaml",
        "catalog/merges/con.yaml:3:7: name: expected a name that Windows allows, found con\n"
        "  hint: choose another name",
        "catalog/merges/link.yaml: expected a regular file, found a symlink or submodule\n"
        "  hint: copy the file itself here",
    ]


def test_a_broken_file_is_not_reported_again_by_what_refers_to_it(repository: Repository) -> None:
    repository.edit("catalog/adapters/formal/1/adapter.yaml", "kind: adapter", "kind: adopter")

    found = problems(repository)

    assert len(found) == 1
    assert found[0].startswith("catalog/adapters/formal/1/adapter.yaml:2:7: kind:")


def test_versions_are_immutable_against_a_revision(repository: Repository) -> None:
    adapter = "catalog/adapters/formal/1/adapter.yaml"
    text = (repository.root / adapter).read_text()
    digest = text.split('"')[1]
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    (repository.root / adapter).write_text(text.replace(digest, other))
    shutil.rmtree(repository.root / "catalog/adapters/brief/1")
    (repository.root / "catalog/merges/formal-not-brief.yaml").unlink()
    index = Index(repository.root)

    now = catalog.load(WorkingTree(repository.root), index)
    before = catalog.load(RevisionTree(repository.root, "HEAD"), index)
    found = crosscheck.immutable(now.catalog, now.sources, before.catalog)

    assert sorted(problem.text() for problem in found) == [
        "catalog/adapters/brief/1/adapter.yaml: adapter brief@1 stands at the earlier revision "
        "and may not vanish\n  hint: restore it; use `revoked:` to end it",
        f"{adapter}:6:19: weights.digest: adapter formal@1 is immutable: expected {digest}, "
        f"found {other}\n  hint: make it a new version",
    ]


def test_the_index_gives_the_same_catalog_and_the_same_problems(repository: Repository) -> None:
    index = Index(repository.root)
    first = catalog.load(WorkingTree(repository.root), index).catalog
    index.save()

    second = catalog.load(WorkingTree(repository.root), Index(repository.root)).catalog
    repository.edit(MERGE, "adapter: formal", "adapter: fromal")

    assert first == second
    assert len(problems(repository)) == 1


def test_a_catalog_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCatalog) as caught:
        catalog.load(WorkingTree(tmp_path), Index(tmp_path))

    assert caught.value.problems[0].file == "catalog/registry.yaml"
    assert json.dumps(caught.value.message) == '"1 problem in 1 of 1 file"'


def test_a_dialect_is_one_of_the_recipes_method(repository: Repository) -> None:
    write_merge(
        repository,
        "foreign",
        "  method: ties\n  dialect: dare-paper\n  parameters: {density: 0.1}\n  terms:\n"
        "    - {adapter: formal, version: 1}\n",
    )

    assert problems(repository) == [
        "catalog/merges/foreign.yaml:6:12: recipe.dialect: expected method dare_linear with "
        "dare-paper, found ties\n"
        "  hint: write method: dare_linear, or remove dialect; dialects of ties: ties-paper, "
        "ties-mergekit, ties-peft-total, ties-peft-frequency, ties-fusionbench"
    ]


def test_a_dialect_brings_its_limits(repository: Repository) -> None:
    write_merge(
        repository,
        "negative",
        "  method: ties\n  dialect: ties-mergekit\n  terms:\n"
        "    - {adapter: formal, version: 1, weight: -1}\n",
    )

    assert problems(repository) == [
        "catalog/merges/negative.yaml:8:45: recipe.terms[0].weight: expected no negative weight "
        "(weighted_mean divides by the sum), found -1\n  hint: combine: mean"
    ]
