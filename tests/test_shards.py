"""Which objects hold shards that merges share: remembered, believed by their stat, or read again."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from registry import keys, shards
from registry.keys import Artifact
from registry.local_store import LocalStore
from registry.record import BuildRecord, Built
from registry.verification import check
from tests.test_store import KEY, OTHER_KEY, WEIGHTS, contents_of, flip_a_bit, publish

BASE = "sha256:" + "1" * 64
SHARD = "sha256:" + "2" * 64


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    return LocalStore(tmp_path / "repository")


@pytest.fixture
def artifact(store: LocalStore) -> Artifact:
    """Publish an artifact whose weights are a shard that is remembered."""
    made = publish(store)  # type: ignore[arg-type]
    shards.remember(store.cache, BASE, {WEIGHTS: SHARD}, made.files)
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    return made


def object_of(store: LocalStore, artifact: Artifact) -> Path:
    return keys.object_path(store.cache, artifact.files[WEIGHTS].md5)


def flip_unseen(path: Path) -> None:
    """Alter a file and set its modification time back."""
    stat = path.stat()
    flip_a_bit(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_remembered_shard_is_found_under_its_base_only(
    store: LocalStore, artifact: Artifact
) -> None:
    stored = artifact.files[WEIGHTS]
    place = object_of(store, artifact)
    stat = place.stat()

    assert shards.known(store.cache, BASE) == {
        SHARD: {
            "path": str(place),
            "sha256": stored.sha256,
            "md5": stored.md5,
            "size": stored.size,
            "mtime_ns": stat.st_mtime_ns,
            "inode": stat.st_ino,
        }
    }
    assert shards.known(store.cache, SHARD) == {}


@pytest.mark.parametrize("alter", [flip_a_bit, flip_unseen, Path.unlink])
def test_an_altered_object_is_not_believed_and_comes_back_by_publishing(
    store: LocalStore, artifact: Artifact, alter: object
) -> None:
    assert callable(alter)
    alter(object_of(store, artifact))

    assert shards.known(store.cache, BASE) == {}

    publish(store, key=OTHER_KEY)  # type: ignore[arg-type]
    assert shards.known(store.cache, BASE) == {}, "another file than the one remembered"
    shards.remember(store.cache, BASE, {WEIGHTS: SHARD}, artifact.files)
    assert SHARD in shards.known(store.cache, BASE)


def test_an_object_that_was_only_linked_is_read_once_more_and_believed(
    store: LocalStore, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(object_of(store, artifact), tmp_path / "link")

    assert SHARD in shards.known(store.cache, BASE)

    monkeypatch.setattr("registry.objects.hash_file", None)
    assert SHARD in shards.known(store.cache, BASE)


def test_what_we_linked_ourselves_is_not_read_again(
    store: LocalStore, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.materialize(artifact, tmp_path / "out", link=True)

    shards.settle(store.cache, BASE, [SHARD])

    monkeypatch.setattr("registry.objects.hash_file", None)
    assert SHARD in shards.known(store.cache, BASE)


def test_settling_never_makes_an_altered_object_believed(
    store: LocalStore, artifact: Artifact
) -> None:
    flip_a_bit(object_of(store, artifact))

    shards.settle(store.cache, BASE, [SHARD, KEY])

    assert shards.known(store.cache, BASE) == {}


def test_what_verify_finds_altered_is_forgotten(store: LocalStore, artifact: Artifact) -> None:
    # Bits that rot on the disk change no stat, so here the memory is made to agree with them.
    flip_a_bit(object_of(store, artifact))
    shards.remember(store.cache, BASE, {WEIGHTS: SHARD}, artifact.files)
    assert SHARD in shards.known(store.cache, BASE)
    built = Built(
        key=KEY,
        request={},
        model_digest=artifact.model_digest,
        artifact={"digest": artifact.artifact_digest, "files": {}},
        versions={},
        device_class="cpu",
        seconds=1.0,
        peak_bytes=1,
    )

    found = check(store, BuildRecord("m", built), deep=True)  # type: ignore[arg-type]

    assert found.files == (WEIGHTS,)
    assert shards.known(store.cache, BASE) == {}


def test_a_linked_file_is_published_without_being_read(
    store: LocalStore, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.staging() / "again"
    store.materialize(artifact, folder, link=True)
    read: list[Path] = []
    monkeypatch.setattr("registry.objects.is_intact", lambda path, _file: bool(read.append(path)))

    again = store.publish(
        folder,
        key=OTHER_KEY,
        model_digest=artifact.model_digest,
        artifact_digest=artifact.artifact_digest,
        files=artifact.files,
        facts={},
    )

    assert read == []
    assert keys.read(store.cache, OTHER_KEY) == again
    assert contents_of(folder).keys() == artifact.files.keys()


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"format_version": 2}', "deep", "md5"])
def test_a_memory_that_is_no_good_counts_as_none(
    store: LocalStore, artifact: Artifact, damage: str
) -> None:
    (path,) = (store.cache / "registry/shards").rglob("*.json")
    data = json.loads(path.read_text())
    if damage == "md5":
        data["file"]["md5"] = "../../../../../../etc/passwd"
        damage = json.dumps(data)
    path.write_text("[" * 100_000 if damage == "deep" else damage)

    assert shards.known(store.cache, BASE) == {}
    shards.settle(store.cache, BASE, [SHARD])
    shards.forget(store.cache, [])
    assert not path.exists()


def test_an_object_that_vanished_is_not_remembered(store: LocalStore, artifact: Artifact) -> None:
    object_of(store, artifact).unlink()

    shards.remember(store.cache, BASE, {WEIGHTS: OTHER_KEY}, artifact.files)

    assert shards.known(store.cache, BASE) == {}


def test_a_store_in_which_nothing_can_be_remembered_is_no_failure(
    store: LocalStore, artifact: Artifact
) -> None:
    folder = store.cache / "registry" / "shards"
    shutil.rmtree(folder)
    folder.write_text("in the way")

    shards.remember(store.cache, BASE, {WEIGHTS: SHARD}, artifact.files)
    shards.settle(store.cache, BASE, [SHARD])

    assert shards.known(store.cache, BASE) == {}
