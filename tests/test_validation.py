"""A second validation looks at stats only, and says what a first one would say."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import index as index_module
from registry import outlook, sealed, validation
from registry.errors import InvalidCatalog
from registry.index import Index
from registry.validation import Validation
from tests.conftest import Repository

SETTLING_NS = 30_000_000
ADAPTER = "catalog/adapters/formal/1"


@pytest.fixture(autouse=True)
def _quickly_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "SETTLING_NS", SETTLING_NS)


def said(root: Path, *, with_digests: bool = True) -> Validation | str:
    try:
        return validation.check(root, Index(root), with_digests=with_digests)
    except InvalidCatalog as error:
        return "".join(problem.text() for problem in error.problems)


def said_cold(root: Path) -> Validation | str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed, "read", lambda *_: None)
        patch.setattr(sealed, "write", lambda *_: None)
        return said(root)


def settle() -> None:
    time.sleep(2 * SETTLING_NS / 10**9)


def no_load(*_: object) -> None:
    msg = "the catalog was loaded"
    raise AssertionError(msg)


def test_a_second_validation_loads_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle()
    first = said(repository.root)
    monkeypatch.setattr(outlook, "load", no_load)

    assert said(repository.root) == first == Validation(9, (), ())
    with pytest.raises(AssertionError, match="was loaded"):
        said(repository.root, with_digests=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "catalog/merges/average.yaml").write_text("kind: merge"),
        lambda root: (root / "catalog/merges/average.yaml").unlink(),
        lambda root: (root / "catalog/merges/stray.yml").write_text("x"),
        lambda root: (
            (root / "catalog/builds").mkdir() or (root / "catalog/builds/x").write_text("")
        ),
        lambda root: (root / "catalog/registry.yaml").unlink(),
        lambda root: (root / ADAPTER / "weights/adapter_config.json").write_text("{}"),
        lambda root: (root / ADAPTER / "weights/more.bin").write_text("x"),
        lambda root: (root / ADAPTER / "weights").rename(root / "elsewhere"),
        lambda root: (root / ADAPTER / "weights/link").symlink_to("adapter_config.json"),
        lambda root: (root / "schemas/merge.schema.json").write_text("{}"),
        lambda root: Repository(root).git(
            "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},catalog/module"
        ),
    ],
)
def test_every_change_is_noticed(repository: Repository, change: Callable[[Path], object]) -> None:
    settle()
    before = said(repository.root)

    change(repository.root)

    assert said(repository.root) == said_cold(repository.root) != before
    settle()
    assert said(repository.root) == said_cold(repository.root) != before
    assert said(repository.root) == said_cold(repository.root)


def test_a_touched_file_changes_nothing(repository: Repository) -> None:
    settle()
    before = said(repository.root)

    os.utime(repository.root / "catalog/merges/average.yaml")

    assert said(repository.root) == before


def test_what_changed_a_moment_ago_is_not_remembered(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "SETTLING_NS", 3600 * 10**9)

    said(repository.root)

    assert not (repository.root / ".registry/validated").exists()


def test_warnings_and_what_is_absent_are_said_again(repository: Repository) -> None:
    (repository.root / "schemas/merge.schema.json").write_text("{}")
    (repository.root / ADAPTER / "weights").rename(repository.root / "elsewhere")
    settle()
    first = said(repository.root)
    assert isinstance(first, Validation)
    assert (len(first.problems), first.absent) == (1, (("adapter formal@1", ""),))
    assert (repository.root / ".registry/validated").exists()

    assert said(repository.root) == first


def test_a_damaged_memory_is_none(repository: Repository) -> None:
    settle()
    first = said(repository.root)
    memory = repository.root / ".registry/validated"
    memory.write_bytes(memory.read_bytes().replace(b'"files": 9', b'"files": 8'))

    assert said(repository.root) == first
