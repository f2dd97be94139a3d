"""Files of a suite that asks tasks of lm-eval: what decides the numbers is in its digest."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from registry import catalog, request
from registry.errors import InvalidCatalog
from registry.index import Index
from registry.spec import Suite
from registry.tree import WorkingTree
from schemas.digest import hash_file
from tests.conftest import Repository

PLACE = "catalog/suites/public"
SUITE = """\
kind: suite
name: public
tasks:
  - name: quiz
    metric: lm_eval
    options: {task: quiz.yaml, metric: "acc,none"}
"""
QUIZ = """\
task: quiz
output_type: multiple_choice
dataset_path: json
dataset_kwargs:
  data_files: {test: quiz.jsonl}
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: [yes, no]
doc_to_target: answer
"""


@pytest.fixture
def folder(repository: Repository) -> Path:
    folder = repository.root / PLACE
    folder.mkdir(parents=True)
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "quiz.yaml").write_text(QUIZ)
    (folder / "quiz.jsonl").write_text('{"question": "Well?", "answer": 0}\n')
    return folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put the metadata of a package lm-eval 9.1 in front of whatever is installed."""
    place = tmp_path / "packages"
    info = place / "lm_eval-9.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lm-eval\nVersion: 9.1\n")
    monkeypatch.syspath_prepend(str(place))
    return info / "METADATA"


def load(folder: Path) -> Suite:
    root = folder.parents[2]
    return catalog.load(WorkingTree(root), Index(root)).catalog.suites["public"]


def problems(folder: Path) -> list[str]:
    with pytest.raises(InvalidCatalog) as caught:
        load(folder)
    return [problem.text() for problem in caught.value.problems]


def test_a_request_has_the_task_file_and_the_version_of_lm_eval(
    folder: Path, installed: Path
) -> None:
    suite = load(folder)

    assert suite.tasks == (
        {
            "name": "quiz",
            "metric": "lm_eval",
            "options": {"task": "quiz.yaml", "metric": "acc,none"},
            "package": {"name": "lm-eval", "version": "9.1"},
            "config": {
                "task": "quiz",
                "output_type": "multiple_choice",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": "quiz.jsonl"}},
                "test_split": "test",
                "doc_to_text": "{{question}}",
                "doc_to_choice": ["yes", "no"],
                "doc_to_target": "answer",
            },
        },
    )


def test_task_file_data_and_version_of_lm_eval_are_in_the_digest_and_so_in_the_key(
    folder: Path, installed: Path
) -> None:
    def key() -> str:
        suite = load(folder)
        asked = {"name": suite.name, "digest": suite.digest, "tasks": list(suite.tasks)}
        wanted = request.evaluation_request(asked, "sha256:" + "0" * 64)
        assert wanted is not None
        return request.key_of(wanted)

    seen = [key(), key()]
    (folder / "quiz.yaml").write_text(QUIZ + 'description: "Answer."\n')
    seen.append(key())
    (folder / "quiz.jsonl").write_text('{"question": "Well?", "answer": 1}\n')
    seen.append(key())
    installed.write_text(installed.read_text().replace("9.1", "9.2"))
    seen.append(key())

    assert len(set(seen)) == len(seen) - 1
    assert seen[0] == seen[1]


def test_the_index_changes_nothing(folder: Path, installed: Path) -> None:
    root = folder.parents[2]
    index = Index(root)

    first = catalog.load(WorkingTree(root), index).catalog.suites["public"]
    second = catalog.load(WorkingTree(root), index).catalog.suites["public"]

    assert first == second
    assert hash_file(folder / "quiz.jsonl").size == 35


def test_without_the_package_the_catalog_says_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        metadata.version("lm-eval")
    except metadata.PackageNotFoundError:
        pass
    else:
        pytest.skip("lm-eval is installed")

    assert problems(folder) == [
        f"{PLACE}/suite.yaml:5:13: tasks[0].metric: expected the package lm-eval, found none\n"
        "  hint: pip install 'merge-registry[lm-eval]'"
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "doc_to_target: answer",
            "doc_to_target: !function utils.target",
            'quiz.yaml:9:16: doc_to_target: expected no tag, found "!function"\n'
            "  hint: lm-eval would run `!function`; a suite holds data and templates, no code",
        ),
        (
            "test_split: test",
            "test_split: test\ninclude: other.yaml",
            "quiz.yaml:7:10: include: expected a known field, found include\n"
            "  hint: a suite holds data, no code: this and whatever else lm-eval knows is left out",
        ),
        (
            "test_split",
            "test_spilt",
            "quiz.yaml:6:13: test_spilt: expected a known field, found test_spilt\n"
            "  hint: did you mean test_split",
        ),
        (
            "quiz.jsonl",
            "other.jsonl",
            "suite.yaml:6:21: tasks[0].options.task: expected the file other.jsonl beside "
            "suite.yaml, found none",
        ),
    ],
)
def test_a_task_file_is_refused_at_its_place(
    folder: Path, installed: Path, old: str, new: str, expected: str
) -> None:
    (folder / "quiz.yaml").write_text(QUIZ.replace(old, new))

    assert f"{PLACE}/{expected}" in problems(folder)


def test_a_task_file_that_is_not_there_is_a_problem(folder: Path, installed: Path) -> None:
    (folder / "quiz.yaml").unlink()

    assert problems(folder) == [
        f"{PLACE}/suite.yaml:6:21: tasks[0].options.task: expected the file quiz.yaml beside "
        "suite.yaml, found none"
    ]


def test_only_a_public_task_says_version_and_documents(folder: Path, installed: Path) -> None:
    suite = folder / "suite.yaml"
    suite.write_text(SUITE.replace("task: quiz.yaml", "version: 1.0, task: quiz.yaml"))

    assert problems(folder) == [
        f"{PLACE}/suite.yaml:6:24: tasks[0].options.version: expected this only with a public "
        "task\n  hint: remove it: the content of files here is in the suite's digest"
    ]


def test_a_public_task_has_no_file(folder: Path, installed: Path) -> None:
    (folder / "suite.yaml").write_text(SUITE.replace("quiz.yaml", "arc_easy"))

    (task,) = load(folder).tasks

    assert task["config"] is None
    assert task["options"] == {"task": "arc_easy", "metric": "acc,none"}


def test_a_perplexity_of_lm_eval_is_better_when_lower(folder: Path, installed: Path) -> None:
    (folder / "suite.yaml").write_text(SUITE.replace("acc,none", "word_perplexity,none"))

    assert load(folder).lower_is_better == {"quiz"}
