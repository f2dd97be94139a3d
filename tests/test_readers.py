"""Many documents on all cores: the same data and the same problems as one process finds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.catalogs import make_catalog
from registry import outlook, readers, report
from registry.errors import InvalidCatalog
from registry.index import Index


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, _own_world: None) -> Path:
    root = tmp_path_factory.mktemp("many") / "catalog"
    make_catalog(root, 60)
    return root


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Let every 20 documents be worth a process on a machine of three cores; note the starts."""
    monkeypatch.setattr(readers, "SHARE", 20)
    monkeypatch.setattr(readers, "_cores", lambda: 3)
    commands: list[list[str]] = []
    real = subprocess.Popen

    class Watched(real):  # type: ignore[type-arg]
        def __init__(self, command: list[str], **options: object) -> None:
            if "registry.readers" in command:
                commands.append(command)
            super().__init__(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", Watched)
    return commands


def wanted(root: Path) -> list[readers.Wanted]:
    files = sorted((root / "catalog/merges").glob("*.yaml"))
    return [("merge", file.relative_to(root).as_posix()) for file in files]


def serially(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(readers, "SHARE", 10**9)
        return told(root)


def told(root: Path) -> str:
    try:
        loaded = outlook.load(root, Index(root))
    except InvalidCatalog as error:
        return report.problems_text(error.problems) + error.message
    return repr((loaded.catalog, loaded.files))


def test_what_children_read_is_what_one_process_reads(
    made: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = serially(made, monkeypatch)
    assert started == []

    assert told(made) == expected
    assert len(started) == 2


def test_problems_are_told_in_the_same_words_and_order(
    made: Path, tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "catalog"
    shutil.copytree(made, root)
    for number, (_, path) in enumerate(wanted(root)):
        file = root / path
        if number % 5 == 0:
            file.write_text(file.read_text().replace("weight: 0.3", "weight: none"))
        if number % 7 == 0:
            file.write_text(file.read_text().replace("method: ", "method: no"))
        if number % 11 == 0:
            file.write_text(file.read_text() + "\t:")
    expected = serially(root, monkeypatch)
    assert " problems in " in expected

    assert told(root) == expected
    assert len(started) == 2


def test_only_valid_documents_come_back(made: Path, started: list[list[str]]) -> None:
    asked = [*wanted(made), ("merge", "catalog/registry.yaml"), ("merge", "catalog/gone.yaml")]

    found = readers.read(made, asked)

    assert sorted(found) == sorted(path for _, path in wanted(made))
    assert len(started) == 2


def test_children_that_die_cost_only_time(
    made: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = serially(made, monkeypatch)
    monkeypatch.setattr(readers.sys, "executable", shutil.which("false"))

    assert told(made) == expected
    assert len(started) == 2


def test_few_documents_start_no_process(made: Path, started: list[list[str]]) -> None:
    assert len(readers.read(made, wanted(made)[:19])) == 19
    assert started == []
