"""What a spec may ask of its output, in the words that people read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry import catalog, preflight
from registry.errors import InvalidCatalog
from registry.index import Index
from registry.tree import WorkingTree
from schemas.digest import hash_folder, tree_digest
from tests.conftest import Repository

MERGE = "catalog/merges/both-skills.yaml"
CURE = "\n  hint: add a rank, as in rank: 32, to cut it off there, or build it as a model"


def problems(repository: Repository) -> list[str]:
    """Return what `registry validate` says of the working tree, weights included."""
    root = repository.root
    try:
        loaded = catalog.load(WorkingTree(root), Index(root))
    except InvalidCatalog as error:
        return [problem.text() for problem in error.problems]
    return [problem.text() for problem in preflight.check(root, loaded, Index(root)).problems]


def ask(repository: Repository, output: str, method: str = "task_arithmetic") -> None:
    repository.edit(MERGE, "recipe:", f"output: {output}\nrecipe:")
    repository.edit(MERGE, "method: task_arithmetic", f"method: {method}")


@pytest.mark.parametrize("output", ["{form: adapter}", "{form: adapter, rank: 4, dtype: float16}"])
def test_a_linear_merge_of_adapters_may_be_an_adapter(repository: Repository, output: str) -> None:
    ask(repository, output)

    assert problems(repository) == []


def test_a_rank_makes_an_adapter_of_any_method(repository: Repository) -> None:
    ask(repository, "{form: adapter, rank: 4}", "ties")

    assert problems(repository) == []


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "{form: adapter, max_shard_size: 2GB}",
            "5:41: output.max_shard_size: an adapter is one file\n  hint: remove it",
        ),
        (
            "{form: model, rank: 8}",
            "5:29: output.rank: a model has no rank\n  hint: write form: adapter, or remove it",
        ),
        (
            "{form: adapter, rank: 0}",
            "5:31: output.rank: expected a whole number from 1 to 65536, found 0",
        ),
    ],
)
def test_options_of_the_other_form_are_refused(
    repository: Repository, output: str, expected: str
) -> None:
    ask(repository, output)

    assert problems(repository) == [f"{MERGE}:{expected}"]


def test_a_method_that_is_not_linear_needs_a_rank(repository: Repository) -> None:
    ask(repository, "{form: adapter}", "ties")

    assert problems(repository) == [
        f"{MERGE}:5:16: output.form: expected a rank beside it: ties is not linear,"
        f" so no adapter holds its result exactly{CURE}"
    ]


def test_a_term_that_is_a_model_needs_a_rank(repository: Repository) -> None:
    ask(repository, "{form: adapter}")
    repository.edit(MERGE, "  terms:\n", "  terms:\n    - {merge: average}\n")

    assert problems(repository) == [
        f"{MERGE}:5:16: output.form: expected a rank beside it:"
        f" merge average is a whole model, no product of factors{CURE}"
    ]


def test_a_term_that_is_an_adapter_itself_needs_none(repository: Repository) -> None:
    ask(repository, "{form: adapter}")
    repository.edit(MERGE, "  terms:\n", "  terms:\n    - {merge: average}\n")
    average = "catalog/merges/average.yaml"
    repository.edit(average, "recipe:", "output: {form: adapter}\nrecipe:")

    assert problems(repository) == []


def set_config(repository: Repository, **facts: object) -> None:
    """Change adapter_config.json of brief@2 and the digest that pins it."""
    folder = repository.root / "catalog/adapters/brief/2"
    path = folder / "weights/adapter_config.json"
    before = tree_digest(hash_folder(folder / "weights"))
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | facts), "utf-8")
    after = tree_digest(hash_folder(folder / "weights"))
    repository.edit("catalog/adapters/brief/2/adapter.yaml", before, after)


@pytest.mark.parametrize(("key", "value"), [("use_dora", True), ("bias", "all")])
def test_an_adapter_with_more_than_factors_needs_a_rank(
    repository: Repository, key: str, value: object
) -> None:
    ask(repository, "{form: adapter}")
    set_config(repository, **{key: value})

    assert (
        f"{MERGE}:5:16: output.form: expected a rank beside it:"
        f" adapter brief@2 has {key}, which no product of factors holds{CURE}"
    ) in problems(repository)


def test_what_is_not_at_hand_is_left_to_the_build(repository: Repository) -> None:
    ask(repository, "{form: adapter}")
    weights = repository.root / "catalog/adapters/brief/2/weights"
    weights.rename(Path(repository.root.parent, "elsewhere"))

    assert problems(repository) == []
