"""What merges of one base share is stored once, linked into the next build, and never altered."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from registry import keys
from registry.keys import Artifact
from tests.conftest import Repository

pytestmark = pytest.mark.slow


def declare(repository: Repository, name: str, weight: float) -> None:
    (repository.root / f"catalog/merges/{name}.yaml").write_text(
        f"kind: merge\nname: {name}\nbase: tiny-llama\nrecipe:\n  method: task_arithmetic\n"
        f"  terms: [{{adapter: formal, version: 1, weight: {weight}}}]\n"
    )


def artifact_of(repository: Repository, model: str) -> Artifact:
    record = json.loads((repository.root / f"catalog/builds/{model}.json").read_text())
    found = keys.read(repository.root / ".dvc/cache", record["key"])
    assert found is not None
    return found


def shared_object(repository: Repository, model: str) -> Path:
    """Return the object of the shard that no term of a model touches."""
    artifact = artifact_of(repository, model)
    file = max(path for path in artifact.files if path.endswith(".safetensors"))
    return keys.object_path(repository.root / ".dvc/cache", artifact.files[file].md5)


@pytest.fixture(scope="module")
def ten(_example: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Make ten merges of one base and the same targets; every test leaves the store whole."""
    repository = Repository(tmp_path_factory.mktemp("shared") / "models")
    shutil.copytree(_example, repository.root)
    for number in range(6):
        declare(repository, f"more-{number}", 0.1 + number / 8)
    ran = repository.run("sync", "--jobs", "2", "--memory", "20MB")
    assert ran.code == 0, ran.err
    return repository


def test_ten_merges_of_one_base_store_the_untouched_part_once(ten: Repository) -> None:
    models = [path.stem for path in (ten.root / "catalog/builds").glob("*.json")]
    assert len(models) >= 10
    objects = {shared_object(ten, model) for model in models}
    assert len(objects) == 1
    (shared,) = objects
    assert shared.stat().st_mode & 0o777 == 0o444
    assert ten.run("verify", "--deep").code == 0


def test_the_next_build_links_what_the_store_has_and_leaves_it_as_it_was(
    ten: Repository,
) -> None:
    shared = shared_object(ten, "average")
    before, content = shared.stat(), shared.read_bytes()
    declare(ten, "next", 0.3)

    assert ten.run("sync", "next").code == 0

    assert shared_object(ten, "next") == shared
    after = shared.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert after.st_ctime_ns > before.st_ctime_ns, "only a link moves this one"
    assert (after.st_nlink, after.st_mode & 0o777) == (1, 0o444)
    assert shared.read_bytes() == content
    assert "rebuilt bit for bit" in ten.run("verify", "next", "--rebuild").out


def test_bytes_altered_in_the_store_are_built_anew_and_mended_by_the_next_model(
    ten: Repository,
) -> None:
    shared = shared_object(ten, "average")
    stat, content = shared.stat(), bytearray(shared.read_bytes())
    content[-1] ^= 1
    time.sleep(0.02)
    shared.chmod(0o644)
    shared.write_bytes(content)
    shared.chmod(0o444)
    os.utime(shared, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    declare(ten, "later", 0.4)

    assert ten.run("sync", "later").code == 0

    assert shared_object(ten, "later") == shared
    ran = ten.run("verify", "--deep")
    assert ran.code == 0, ran.out
