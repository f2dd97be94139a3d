"""The synced example, made once per session and copied for each test; what is recorded in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Repository


def digests(repository: Repository) -> dict[str, str]:
    """Return the live model digest of every recorded model."""
    folder = repository.root / "catalog/builds"
    records = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return {name: one["model_digest"] for name, one in records.items() if "key" in one}


def log_of_workers(repository: Repository) -> str:
    path = repository.root / ".registry/worker.log"
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="session")
def synced_once(tmp_path_factory: pytest.TempPathFactory, _own_world: None) -> Path:
    """Make the example and sync it once; tests work on copies."""
    from registry import example, founding

    root = tmp_path_factory.mktemp("synced") / "models"
    founding.found(root)
    example.write(root)
    repository = Repository(root)
    repository.commit("start")
    ran = repository.run("sync")
    assert ran.code == 0, ran.err
    repository.commit("built")
    return root


@pytest.fixture
def synced(synced_once: Path, tmp_path: Path) -> Repository:
    """Return a copy of the synced example; its tracking store moves along."""
    subprocess.run(["cp", "-a", str(synced_once), str(tmp_path / "models")], check=True)
    return Repository(tmp_path / "models")
