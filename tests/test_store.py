from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from registry import keys, objects, store
from registry.errors import NotNow, RegistryError, VerificationFailed
from registry.keys import Artifact, StoredFile
from registry.store import Store
from schemas.digest import hash_folder, model_digest, tree_digest

KEY = "sha256:" + "ab" * 32
OTHER_KEY = "sha256:" + "cd" * 32
CONTENTS = {
    "config.json": b'{"model_type": "llama"}',
    "model-00001-of-00001.safetensors": bytes(range(256)) * 64,
    "tokenizer/merges.txt": b"a b\n",
}


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "A")
        monkeypatch.setenv(f"{name}_EMAIL", "a@example.org")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    run("git", "init", "--quiet", cwd=root)
    store.init(root)
    store.add_remote(root, "team", str(tmp_path / "remote"), default=True)
    (root / "catalog/builds").mkdir(parents=True)
    return root


def run(*argv: str, cwd: Path) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def publish(to: Store, contents: Mapping[str, bytes] = CONTENTS, key: str = KEY) -> Artifact:
    folder = to.staging()
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return publish_folder(to, folder, key)


def publish_folder(to: Store, folder: Path, key: str = KEY) -> Artifact:
    hashes = hash_folder(folder)
    files = {
        path: StoredFile(
            hashed.sha256, hashlib.md5((folder / path).read_bytes()).hexdigest(), hashed.size
        )
        for path, hashed in hashes.items()
    }
    return to.publish(
        folder,
        key=key,
        model_digest=model_digest(hashes),
        artifact_digest=tree_digest(hashes),
        files=files,
        facts={"seconds": 2.0},
    )


def object_of(of: Store, artifact: Artifact, path: str) -> Path:
    return keys.object_path(of.cache, artifact.files[path].md5)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)  # what DVC takes as the sign of verified bytes


def contents_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


WEIGHTS = "model-00001-of-00001.safetensors"


def test_what_is_published_is_present_and_found_by_its_key(root: Path) -> None:
    ours = Store(root)

    artifact = publish(ours)

    assert keys.read(ours.cache, KEY) == artifact
    assert keys.is_present(ours.cache, artifact)
    assert ours.verify(artifact, deep=True) == []
    assert object_of(ours, artifact, WEIGHTS).stat().st_mode & 0o777 == 0o444


def test_the_object_for_the_directory_is_the_one_that_dvc_makes(root: Path) -> None:
    weights = root / "catalog/bases/tiny/weights"
    for path, data in CONTENTS.items():
        (weights / path).parent.mkdir(parents=True, exist_ok=True)
        (weights / path).write_bytes(data)

    pointer = Store(root).add_weights(weights)

    assert pointer == root / "catalog/bases/tiny/weights.dvc"
    artifact = publish(Store(root))
    assert artifact.oid in pointer.read_text()


def test_publishing_costs_no_second_copy(root: Path) -> None:
    ours = Store(root)
    folder = ours.staging()
    (folder / "config.json").write_bytes(b"{}")

    artifact = publish_folder(ours, folder)

    assert (folder / "config.json").samefile(object_of(ours, artifact, "config.json"))


def test_an_altered_object_is_replaced_by_publishing_its_bytes_again(root: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    flip_a_bit(object_of(ours, artifact, WEIGHTS))
    flip_a_bit(keys.object_path(ours.cache, artifact.oid))

    publish(ours, key=OTHER_KEY)

    assert ours.verify(artifact, deep=True) == []


def test_an_intact_object_is_left_alone_by_publishing_it_again(root: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    before = object_of(ours, artifact, WEIGHTS).stat()

    publish(ours, key=OTHER_KEY)

    assert object_of(ours, artifact, WEIGHTS).stat().st_ino == before.st_ino


def test_a_publication_that_fails_leaves_no_entry_and_can_be_repeated(root: Path) -> None:
    ours = Store(root)
    last = max(CONTENTS)
    obstacle = keys.object_path(ours.cache, hashlib.md5(CONTENTS[last]).hexdigest()).parent
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder belongs")

    with pytest.raises(RegistryError, match="exists"):
        publish(ours)

    assert keys.read(ours.cache, KEY) is None
    obstacle.unlink()
    assert ours.verify(publish(ours), deep=True) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").write_bytes(b"{} "), "expected 2 bytes, found 3"),
        (lambda folder: (folder / "config.json").unlink(), "missing from the artifact"),
        (lambda folder: (folder / "more").write_bytes(b""), "a file that nobody declared"),
    ],
)
def test_a_folder_that_is_not_what_was_declared_is_refused(
    root: Path, spoil: object, message: str
) -> None:
    ours = Store(root)
    folder = ours.staging()
    (folder / "config.json").write_bytes(b"{}")
    hashes = hash_folder(folder)
    declared = hashes["config.json"]
    files = {"config.json": StoredFile(declared.sha256, hashlib.md5(b"{}").hexdigest(), 2)}
    assert callable(spoil)
    spoil(folder)

    with pytest.raises(VerificationFailed, match=message):
        ours.publish(
            folder,
            key=KEY,
            model_digest=model_digest(hashes),
            artifact_digest=tree_digest(hashes),
            files=files,
            facts={},
        )

    assert keys.read(ours.cache, KEY) is None


def test_digests_of_other_files_are_refused(root: Path) -> None:
    ours = Store(root)
    folder = ours.staging()
    (folder / "a").write_bytes(b"x")
    files = {"a": StoredFile(hashlib.sha256(b"x").hexdigest(), hashlib.md5(b"x").hexdigest(), 1)}

    with pytest.raises(VerificationFailed, match="the digests are not those of the files"):
        ours.publish(folder, key=KEY, model_digest=KEY, artifact_digest=KEY, files=files, facts={})


def test_a_flipped_bit_is_noticed_by_a_deep_look_only(root: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)

    flip_a_bit(object_of(ours, artifact, WEIGHTS))

    assert ours.verify(artifact, deep=False) == []
    assert ours.verify(artifact, deep=True) == [WEIGHTS]


def test_a_missing_object_and_an_altered_directory_are_noticed_at_once(root: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)

    object_of(ours, artifact, "config.json").unlink()
    flip_a_bit(keys.object_path(ours.cache, artifact.oid))

    assert ours.verify(artifact, deep=False) == ["config.json", artifact.oid]


def test_only_altered_objects_are_dropped(root: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    flip_a_bit(object_of(ours, artifact, WEIGHTS))
    flip_a_bit(keys.object_path(ours.cache, artifact.oid))

    ours.drop_altered(artifact)

    assert ours.verify(artifact, deep=True) == [WEIGHTS, artifact.oid]
    assert not object_of(ours, artifact, WEIGHTS).exists()
    assert object_of(ours, artifact, "config.json").exists()


def test_an_export_is_a_copy_of_its_own(root: Path, tmp_path: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    out = tmp_path / "deep" / "out"

    ours.materialize(artifact, out, link=False)

    assert contents_of(out) == CONTENTS
    for path in CONTENTS:
        assert not (out / path).samefile(object_of(ours, artifact, path))
        assert (out / path).stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_inputs_for_a_worker_share_the_bytes_of_the_cache(root: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    out = ours.staging()

    ours.materialize(artifact, out, link=True)

    assert contents_of(out) == CONTENTS
    assert (out / WEIGHTS).samefile(object_of(ours, artifact, WEIGHTS))


@pytest.mark.parametrize("link", [True, False])
def test_altered_or_missing_bytes_are_never_brought_out(
    root: Path, tmp_path: Path, *, link: bool
) -> None:
    ours = Store(root)
    artifact = publish(ours)
    flip_a_bit(object_of(ours, artifact, WEIGHTS))

    with pytest.raises(VerificationFailed, match=f"{WEIGHTS}: expected sha256"):
        ours.materialize(artifact, tmp_path / "out", link=link)

    object_of(ours, artifact, WEIGHTS).unlink()
    with pytest.raises(VerificationFailed, match=f"{WEIGHTS}: missing from the store"):
        ours.materialize(artifact, tmp_path / "out", link=link)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repo", "site"]


def test_a_folder_that_holds_something_is_not_exported_into(root: Path, tmp_path: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    out = tmp_path / "out"
    out.mkdir()
    ours.materialize(artifact, out, link=False)

    with pytest.raises(RegistryError, match="expected an absent or empty folder"):
        ours.materialize(artifact, out, link=False)
    with pytest.raises(RegistryError, match="expected an absent or empty folder"):
        ours.materialize(artifact, out / "config.json", link=False)

    assert contents_of(out) == CONTENTS


def test_the_pointer_is_stable_and_names_the_remote_where_one_is_set(
    root: Path, tmp_path: Path
) -> None:
    artifact = publish(Store(root))
    pointer = tmp_path / "m.dvc"

    Store(root).write_pointer(pointer, "office-assistant", artifact)

    size = sum(len(data) for data in CONTENTS.values())
    text = f"outs:\n- md5: {artifact.oid}\n  size: {size}\n  nfiles: 3\n  hash: md5\n"
    assert pointer.read_text() == text + "  path: office-assistant\n"

    Store(root, "team").write_pointer(pointer, "1e3", artifact)

    assert pointer.read_text() == text + "  path: '1e3'\n  remote: team\n"


@pytest.mark.parametrize("name", ["on", "2026-01-01", "0x1f", "007", "null", "a-b", "it's"])
def test_any_name_stays_text_in_a_pointer(root: Path, tmp_path: Path, name: str) -> None:
    from ruamel.yaml import YAML

    artifact = publish(Store(root))

    Store(root, name).write_pointer(tmp_path / "m.dvc", name, artifact)

    for version in ("1.1", "1.2"):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version  # type: ignore[assignment]
        (out,) = yaml.load((tmp_path / "m.dvc").read_text())["outs"]
        assert (out["path"], out["remote"]) == (name, name)


def push(ours: Store, artifact: Artifact, name: str = "m") -> Path:
    pointer = ours.root / f"catalog/builds/{name}.dvc"
    ours.write_pointer(pointer, name, artifact)
    ours.push(artifact, pointer)
    return pointer


@pytest.mark.slow
@pytest.mark.parametrize("remote", [None, "team"])
def test_stock_dvc_restores_the_bytes_in_a_fresh_clone(
    root: Path, tmp_path: Path, remote: str | None
) -> None:
    ours = Store(root, remote)
    push(ours, publish(ours))
    run("git", "add", ".", cwd=root)
    run("git", "commit", "--quiet", "-m", "a build", cwd=root)
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(root), str(clone), cwd=tmp_path)

    run(sys.executable, "-m", "dvc", "pull", "catalog/builds/m.dvc", cwd=clone)

    assert contents_of(clone / "catalog/builds/m") == CONTENTS


def test_what_was_pushed_is_known_without_asking_the_remote(root: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    assert not ours.pushed(KEY)

    push(ours, artifact)

    assert ours.pushed(KEY)
    assert not ours.pushed(OTHER_KEY)
    store.add_remote(root, "team", "/another/place", default=True)
    assert not Store(root).pushed(KEY)
    run(sys.executable, "-m", "dvc", "remote", "remove", "team", cwd=root)
    assert not Store(root).pushed(KEY)


def test_another_clone_finds_and_fetches_what_was_pushed(root: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    push(ours, artifact)
    shutil.rmtree(ours.cache)

    assert ours.find_remote_key(OTHER_KEY) is None
    found = ours.find_remote_key(KEY)
    assert found == artifact
    assert ours.fetch(found)

    assert ours.verify(artifact, deep=True) == []
    assert keys.read(ours.cache, KEY) == artifact
    assert ours.fetch(artifact)


def test_nothing_altered_is_ever_pushed(root: Path, tmp_path: Path) -> None:
    ours = Store(root)
    artifact = publish(ours)
    flip_a_bit(object_of(ours, artifact, WEIGHTS))

    with pytest.raises(VerificationFailed, match=f"{WEIGHTS}: missing or altered in the store"):
        push(ours, artifact)

    assert not (tmp_path / "remote").exists()
    assert not ours.pushed(KEY)


def test_a_pointer_to_something_else_is_not_pushed(root: Path) -> None:
    ours = Store(root)
    pointer = push(ours, publish(ours))
    other = publish(ours, {"config.json": b"other"}, OTHER_KEY)

    with pytest.raises(VerificationFailed, match="expected a pointer to"):
        ours.push(other, pointer)


@pytest.mark.parametrize("how", ["absent", "altered", "cut"])
def test_a_remote_without_good_bytes_gives_nothing_and_is_mended_by_the_next_push(
    root: Path, tmp_path: Path, how: str
) -> None:
    ours = Store(root)
    artifact = publish(ours)
    pointer = push(ours, artifact)
    there = keys.object_path(tmp_path / "remote", artifact.files[WEIGHTS].md5)
    if how == "absent":
        there.unlink()
    elif how == "altered":
        flip_a_bit(there)
    else:
        there.chmod(0o644)
        there.write_bytes(b"short")
    object_of(ours, artifact, WEIGHTS).unlink()

    assert not ours.fetch(artifact)
    assert not object_of(ours, artifact, WEIGHTS).exists()

    publish(ours)
    ours.push(artifact, pointer)
    assert there.read_bytes() == CONTENTS[WEIGHTS]


def test_an_entry_of_the_remote_that_is_no_good_counts_as_none(root: Path, tmp_path: Path) -> None:
    ours = Store(root)
    push(ours, publish(ours))

    (tmp_path / "remote" / keys.relative_path(KEY)).write_text("{")

    assert ours.find_remote_key(KEY) is None


def test_without_a_remote_nothing_is_fetched_and_pushing_says_so(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    (root / "catalog/builds").mkdir(parents=True)
    run("git", "init", "--quiet", cwd=root)
    ours = Store(root)
    artifact = publish(ours)

    assert ours.find_remote_key(KEY) is None
    assert ours.fetch(artifact)
    with pytest.raises(RegistryError, match="no remote to push to is configured"):
        push(ours, artifact)
    object_of(ours, artifact, WEIGHTS).unlink()
    assert not ours.fetch(artifact)
    assert ours.remote_problem() == "no remote to push to is configured"


def test_a_remote_that_is_down_is_trouble_for_now(root: Path) -> None:
    store.add_remote(root, "down", "http://someone:hunter2@127.0.0.1:9/store")
    ours = Store(root, "down")
    artifact = publish(ours)

    with pytest.raises(NotNow, match="remote 'down' cannot be used") as caught:
        push(ours, artifact)

    assert "hunter2" not in caught.value.message
    with pytest.raises(NotNow):
        ours.find_remote_key(KEY)
    object_of(ours, artifact, WEIGHTS).unlink()
    with pytest.raises(NotNow):
        ours.fetch(artifact)
    assert "remote 'down' cannot be used" in str(ours.remote_problem())
    assert not ours.pushed(KEY)


def test_a_remote_that_nobody_knows_is_named(root: Path) -> None:
    with pytest.raises(RegistryError, match="remote 'nope' cannot be used") as caught:
        Store(root, "nope").find_remote_key(KEY)

    assert caught.value.exit_code == 1


def test_a_working_remote_has_no_problem(root: Path) -> None:
    assert Store(root).remote_problem() is None


def test_a_folder_without_dvc_is_told_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="expected a DVC repository") as caught:
        Store(tmp_path, "team").find_remote_key(KEY)

    assert caught.value.hint == "run: dvc init"


def test_weights_of_an_ingredient_come_back_from_the_remote(root: Path) -> None:
    ours = Store(root)
    weights = root / "catalog/adapters/sql/1/weights"
    weights.mkdir(parents=True)
    (weights / "adapter_model.safetensors").write_bytes(b"\2" * 50)
    pointer = ours.add_weights(weights)
    run(sys.executable, "-m", "dvc", "push", "--quiet", cwd=root)
    shutil.rmtree(weights)
    shutil.rmtree(ours.cache)

    ours.pull_weights(pointer)

    assert contents_of(weights) == {"adapter_model.safetensors": b"\2" * 50}


def test_weights_that_no_remote_has_are_trouble_for_now(root: Path) -> None:
    ours = Store(root)
    weights = root / "weights"
    weights.mkdir()
    (weights / "a").write_bytes(b"x")
    pointer = ours.add_weights(weights)
    shutil.rmtree(weights)
    shutil.rmtree(ours.cache)

    with pytest.raises(NotNow, match=r"weights\.dvc: could not be pulled"):
        ours.pull_weights(pointer)


def test_a_lock_that_a_person_holds_is_waited_for_but_not_for_ever(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    weights = root / "weights"
    weights.mkdir()
    (weights / "a").write_bytes(b"x")
    code = (
        "import sys, zc.lockfile\n"
        "held = zc.lockfile.LockFile(sys.argv[1]); print(1, flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(root / ".dvc/tmp/lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(NotNow, match="DVC's lock is held by another process"):
            Store(root).add_weights(weights)
    finally:
        holder.kill()
        holder.communicate()

    assert Store(root).add_weights(weights).exists()


def test_publishing_waits_for_no_lock_of_dvc(root: Path) -> None:
    import zc.lockfile

    held = zc.lockfile.LockFile(str(root / ".dvc/tmp/lock"))
    try:
        ours = Store(root)
        push(ours, publish(ours))
    finally:
        held.close()

    assert ours.pushed(KEY)


def test_a_repository_is_initialised_once_quietly_and_without_statistics(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run("git", "init", "--quiet", cwd=tmp_path)

    store.init(tmp_path)
    settings = (tmp_path / ".dvc/config").read_text()
    store.init(tmp_path)

    assert settings == "[core]\n    analytics = False\n"
    assert (tmp_path / ".dvc/config").read_text() == settings
    assert capfd.readouterr() == ("", "")


def test_a_relative_remote_is_relative_to_the_repository(root: Path) -> None:
    store.add_remote(root, "near", "../near")
    store.add_remote(root, "far", "s3://bucket/path")

    text = (root / ".dvc/config").read_text()
    assert f"url = {root.parent / 'near'}" in text
    assert "url = s3://bucket/path" in text
    assert "remote = team" in text


def test_temporary_folders_of_the_dead_are_swept_and_of_the_living_kept(root: Path) -> None:
    code = (
        "import pathlib, sys; from registry.store import Store\n"
        "print(Store(pathlib.Path(sys.argv[1])).staging(), flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    ours = Store(root)
    mine = ours.staging()
    (theirs / "half").write_bytes(b"x")

    ours.sweep()
    assert theirs.is_dir()
    assert mine.is_dir()

    other.send_signal(signal.SIGKILL)
    other.communicate()
    ours.sweep()
    assert not theirs.exists()
    assert mine.is_dir()


def test_sweeping_where_nothing_was_ever_built_does_nothing(root: Path) -> None:
    Store(root).sweep()

    assert not Store(root).cache.exists()


def test_a_staging_folder_can_be_had_after_the_cache_was_removed(root: Path) -> None:
    ours = Store(root)
    ours.staging()
    shutil.rmtree(ours.cache)

    assert ours.staging().is_dir()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_trouble_for_now_and_says_how_much_is_needed(tmp_path: Path) -> None:
    with (
        pytest.raises(NotNow, match="the disk is full, up to 4096 bytes are needed"),
        objects.writing(4096, tmp_path),
    ):
        Path("/dev/full").write_bytes(b"x")


def test_other_refusals_of_the_file_system_name_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(RegistryError, match="file/below: not a directory"),
        objects.writing(1, tmp_path),
    ):
        (tmp_path / "file" / "below").write_bytes(b"")


def test_objects_on_another_file_system_are_copied(root: Path) -> None:
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == root.stat().st_dev:
        pytest.skip("needs a second file system")
    ours = Store(root)
    folder = shared_memory / f"registry-test-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    try:
        (folder / "config.json").write_bytes(b"{}")
        artifact = publish_folder(ours, folder)
        assert ours.verify(artifact, deep=True) == []
        assert object_of(ours, artifact, "config.json").stat().st_mode & 0o777 == 0o444
    finally:
        shutil.rmtree(folder)
