"""What a model was, read from a real Git repository, in which others may have written anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import git
from registry.service import past
from schemas import canonical

FILE = "catalog/builds/m.json"


def built(weight: Any) -> dict[str, Any]:
    source = {"kind": "adapter", "name": "a", "version": 1, "digest": "sha256:" + "1" * 64}
    recipe = {
        "method": "task_arithmetic",
        "parameters": {"lambda": 1.0, "normalize": False},
        "terms": [{"input": source, "weight": weight, "parameters": {}}],
        "compute": "float32",
    }
    base = {"kind": "base", "name": "b", "digest": "sha256:" + "0" * 64}
    request = {
        "format_version": 1,
        "numerics": 1,
        "base": base,
        "recipe": recipe,
        "output": {"form": "model", "dtype": "base", "max_shard_size": 5000},
    }
    facts = {"versions": {}, "device_class": "cpu", "seconds": 1, "peak_bytes": 1}
    digest = "sha256:" + "2" * 64
    made = {"model_digest": digest, "artifact": {"digest": digest, "files": {}}}
    key = canonical.digest(request)
    return {"format_version": 1, "model": "m", "key": key, "request": request, **made, **facts}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a repository with one commit, in which there is no record."""
    git.init(tmp_path)
    (tmp_path / "README").write_text("x")
    git.commit(tmp_path, ["README"], "start")
    return tmp_path


@pytest.fixture
def write(root: Path) -> Callable[[bytes], str]:
    """Return a function that commits the bytes of a record."""

    def write(content: bytes) -> str:
        (root / FILE).parent.mkdir(parents=True, exist_ok=True)
        (root / FILE).write_bytes(content)
        return git.commit(root, [FILE], "a record")

    return write


def test_versions_are_told_and_compared_field_by_field(
    root: Path, write: Callable[[bytes], str]
) -> None:
    start = git.resolve(root, "HEAD")
    first, second = (write(json.dumps(built(weight)).encode()) for weight in (0.5, -0.25))

    versions = past.history(root, "m")
    found = past.difference(root, "m", first, second)
    before = past.difference(root, "m", start, second)

    assert [(one["commit"], one["expression"]) for one in versions] == [
        (second, "b − 0.25·a@1"),
        (first, "b + 0.5·a@1"),
    ]
    assert found
    weight = {"field": "recipe.terms[adapter a@1].weight", "old": 0.5, "new": -0.25}
    assert found["changes"] == [{**weight, "is_input": False}]
    assert before
    assert (before["expressions"], before["changes"]) == ([None, "b − 0.25·a@1"], [])


def test_a_commit_that_is_not_of_the_branch_is_no_version(
    root: Path, write: Callable[[bytes], str]
) -> None:
    first = write(json.dumps(built(0.5)).encode())
    aside = write(json.dumps(built(0.7)).encode())
    git.reset(root, first)

    assert past.difference(root, "m", first, aside) is None
    assert past.difference(root, "m", first, "0" * 40) is None


@pytest.mark.parametrize(
    "forged",
    [
        b"no record",
        b"\xff\xfe",
        json.dumps({**built(0.5), "request": {}}).encode(),
        json.dumps({**built(0.5), "request": []}).encode(),
        json.dumps(built({"layers": "<b>"})).encode(),
        json.dumps({**built(0.5), "evaluation": {"metrics": 1}}).encode(),
        json.dumps({**built(0.5), "format_version": 99}).encode(),
    ],
)
def test_a_forged_record_of_the_past_hides_no_other_version(
    forged: bytes, root: Path, write: Callable[[bytes], str]
) -> None:
    bad, good = write(forged), write(json.dumps(built(0.5)).encode())

    versions = past.history(root, "m")
    found = past.difference(root, "m", bad, good)

    assert [one["expression"] for one in versions] == ["b + 0.5·a@1", None]
    assert found
    assert found["expressions"] == [None, "b + 0.5·a@1"]
