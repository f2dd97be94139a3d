from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from registry import dvc_config, keys
from registry.keys import Artifact, StoredFile
from schemas.digest import FileHash, model_digest, tree_digest

KEY = "sha256:" + "ab" * 32


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))


def artifact_of(contents: Mapping[str, bytes], key: str = KEY) -> Artifact:
    files = {
        path: StoredFile(hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest(), len(data))
        for path, data in contents.items()
    }
    hashes = {path: FileHash(file.sha256, file.size) for path, file in files.items()}
    return Artifact(
        key=key,
        model_digest=model_digest(hashes),
        artifact_digest=tree_digest(hashes),
        oid=keys.listing_oid(files),
        files=files,
        facts={"device_class": "cpu:AVX2:GenuineIntel", "seconds": 1.5},
    )


ARTIFACT = artifact_of({"config.json": b"{}", "model.safetensors": b"\1" * 100, "README.md": b"#"})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    keys.write(tmp_path, ARTIFACT)

    assert keys.read(tmp_path, KEY) == ARTIFACT
    assert [path.name for path in (tmp_path / "registry/keys/ab").iterdir()] == [
        "ab" * 32 + ".json"
    ]


def test_an_unknown_key_has_no_artifact(tmp_path: Path) -> None:
    assert keys.read(tmp_path, KEY) is None


def test_the_size_of_an_artifact_is_that_of_its_files() -> None:
    assert ARTIFACT.size == 103


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": 1}', "[" * 100_000, "\udcff"])
def test_an_unreadable_entry_counts_as_none(tmp_path: Path, text: str) -> None:
    keys.write(tmp_path, ARTIFACT)
    entry = tmp_path / keys.relative_path(KEY)

    entry.write_bytes(text.encode("utf-8", "surrogateescape"))

    assert keys.read(tmp_path, KEY) is None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("key",), "sha256:" + "cd" * 32),
        (("model_digest",), "sha256:" + "0" * 64),
        (("artifact_digest",), "sha256:" + "0" * 64),
        (("oid",), "0" * 32 + ".dir"),
        (("format_version",), 2),
        (("files",), {}),
        (("files", "config.json", "size"), 3),
        (("files", "config.json", "size"), -1),
        (("files", "config.json", "size"), True),
        (("files", "config.json", "sha256"), "0" * 64),
        (("files", "config.json", "md5"), "../" + "0" * 29),
        (("files", "config.json", "mode"), 7),
        (("facts",), 3),
    ],
)
def test_an_entry_that_contradicts_itself_counts_as_none(
    place: tuple[str, ...], value: object
) -> None:
    data = json.loads(json.dumps(keys.as_data(ARTIFACT)))
    spot = data
    for step in place[:-1]:
        spot = spot[step]

    spot[place[-1]] = value

    assert keys.parse(data, KEY) is None


@pytest.mark.parametrize("path", ["../out", "/etc/x", "a//b", "a/./b", "a\\b", "a\0b", ""])
def test_an_entry_whose_paths_lead_elsewhere_counts_as_none(path: str) -> None:
    honest = artifact_of({path: b"x"})

    assert keys.parse(keys.as_data(honest), KEY) is None


def test_an_entry_under_another_key_counts_as_none(tmp_path: Path) -> None:
    keys.write(tmp_path, ARTIFACT)
    other = "sha256:" + "cd" * 32
    target = tmp_path / keys.relative_path(other)
    target.parent.mkdir(parents=True)
    (tmp_path / keys.relative_path(KEY)).rename(target)

    assert keys.read(tmp_path, other) is None


@pytest.mark.parametrize("key", ["", "ab" * 32, "sha256:../../x", "sha256:" + "AB" * 32])
def test_what_is_no_key_names_no_file(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="expected a key like sha256:"):
        keys.read(tmp_path, key)


def place_objects(cache: Path, artifact: Artifact, contents: Mapping[str, bytes]) -> None:
    objects = {artifact.files[path].md5: data for path, data in contents.items()}
    objects[artifact.oid] = keys.listing(artifact.files)
    for oid, data in objects.items():
        target = keys.object_path(cache, oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def test_an_artifact_is_present_if_each_object_has_its_size(tmp_path: Path) -> None:
    contents = {"a": b"one", "b": b"three"}
    artifact = artifact_of(contents)
    place_objects(tmp_path, artifact, contents)

    assert keys.is_present(tmp_path, artifact)


@pytest.mark.parametrize("victim", ["a", "b", "listing"])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_an_artifact_is_not_present_without_an_object(
    tmp_path: Path, victim: str, how: str
) -> None:
    contents = {"a": b"one", "b": b"three"}
    artifact = artifact_of(contents)
    place_objects(tmp_path, artifact, contents)
    oid = artifact.oid if victim == "listing" else artifact.files[victim].md5
    target = keys.object_path(tmp_path, oid)

    target.unlink() if how == "missing" else target.write_bytes(b"")

    assert not keys.is_present(tmp_path, artifact)


def test_evaluations_and_reports_are_kept_apart_under_one_key(tmp_path: Path) -> None:
    keys.write_evaluation(tmp_path, KEY, {"sql": {"metric": 0.5}})
    keys.write_report(tmp_path, KEY, {"tensors": [1, 2]})

    assert keys.read_evaluation(tmp_path, KEY) == {"sql": {"metric": 0.5}}
    assert keys.read_report(tmp_path, KEY) == {"tensors": [1, 2]}


def test_a_kept_result_that_is_no_mapping_counts_as_none(tmp_path: Path) -> None:
    keys.write_report(tmp_path, KEY, {})
    next((tmp_path / "registry/reports/ab").iterdir()).write_text("[1]")

    assert keys.read_report(tmp_path, KEY) is None
    assert keys.read_evaluation(tmp_path, KEY) is None


def test_a_value_without_json_leaves_no_file(tmp_path: Path) -> None:
    broken = dataclasses.replace(ARTIFACT, facts={"seconds": float("nan")})

    with pytest.raises(ValueError, match="JSON"):
        keys.write(tmp_path, broken)

    assert not list(tmp_path.rglob("*.json"))


def test_a_write_that_fails_leaves_the_former_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()

    with pytest.raises(OSError, match="directory"):
        keys.replace_file(target, b"data")

    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_cache_lies_in_the_repository_by_default(tmp_path: Path) -> None:
    assert keys.cache_folder(tmp_path) == tmp_path / ".dvc" / "cache"


def write_settings(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_later_settings_win_and_are_relative_to_their_folder(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    write_settings(tmp_path / "system", "config", "[cache]\ndir = /nowhere\n")
    write_settings(tmp_path / "user", "config", "[cache]\n    dir = shared\n")

    assert keys.cache_folder(root) == tmp_path / "user" / "shared"

    write_settings(root / ".dvc", "config", "[cache]\n    dir = ../../team # ours\n")

    assert keys.cache_folder(root) == tmp_path / "team"

    write_settings(root / ".dvc", "config.local", "# mine\n[Cache]\nDIR = '/mnt/big disk'\n")

    assert keys.cache_folder(root) == Path("/mnt/big disk")


def test_settings_that_cannot_be_read_are_left_to_dvc(tmp_path: Path) -> None:
    write_settings(tmp_path / ".dvc", "config", "")
    (tmp_path / ".dvc/config").write_bytes(b"[cache]\ndir = \xff\n")

    assert keys.cache_folder(tmp_path) == tmp_path / ".dvc" / "cache"


def test_remotes_are_found_with_their_addresses(tmp_path: Path) -> None:
    text = """[core]
    remote = team
['remote "team"']
    url = s3://bucket/path
['remote "Here"']
    url = ../../there
"""
    write_settings(tmp_path / ".dvc", "config", text)

    assert dvc_config.default_remote(tmp_path) == "team"
    assert dvc_config.remote_address(tmp_path, "team") == "s3://bucket/path"
    assert dvc_config.remote_address(tmp_path, "Here") == str(tmp_path.parent / "there")
    assert dvc_config.remote_address(tmp_path, "other") is None


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_settings_lie_where_dvc_itself_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.delenv("DVC_GLOBAL_CONFIG_DIR")
    monkeypatch.delenv("DVC_SYSTEM_CONFIG_DIR")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "etc"))
    place = {"linux": ".config/dvc", "darwin": "Library/Application Support/dvc"}[platform]
    write_settings(tmp_path / "etc" / "dvc", "config", "[cache]\ndir = /system\n")
    write_settings(tmp_path / place, "config", "[cache]\ndir = /home\n")

    assert keys.cache_folder(tmp_path / "repo") == Path("/home")


def test_neither_the_index_nor_the_settings_need_a_heavy_import() -> None:
    heavy = ("dvc", "mlflow", "torch", "yaml", "jsonschema")
    code = (
        "import sys, registry.keys, registry.local_store, registry.store, registry.tracking\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
