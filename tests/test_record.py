"""Build records survive a round trip, and what is none of ours is told."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from registry import record
from registry.errors import NotNow, RegistryError
from registry.record import BuildRecord, Built, Evaluation, Logged, Rejected, UnreadableRecord

BUILT = Built(
    key="sha256:k",
    request={"numerics": 1},
    model_digest="sha256:m",
    artifact={"digest": "sha256:a", "files": {"config.json": {"sha256": "00", "size": 2}}},
    versions={"torch": "2"},
    device_class="cpu:AVX2:X",
    seconds=1.5,
    peak_bytes=10,
)
EVALUATION = Evaluation("sha256:e", {"suite": {}}, {"sql": 0.5}, {"sql": {"at_least": 0.4}})
REJECTED = Rejected("sha256:k2", "sha256:m2", "sha256:e2", {}, ({"passed": False},), {"sql": 0.1})


@pytest.mark.parametrize(
    "one",
    [
        BuildRecord("m", BUILT, EVALUATION, Logged("s", "r", "3"), REJECTED),
        BuildRecord("m", BUILT),
        BuildRecord("m", rejected=REJECTED),
    ],
)
def test_a_record_reads_back_as_written(tmp_path: Path, one: BuildRecord) -> None:
    record.write(tmp_path, one)

    assert record.read_all(tmp_path) == {"m": one}
    assert [path.name for path in record.folder(tmp_path).iterdir()] == ["m.json"]


def test_a_full_disk_is_told_with_the_bytes_needed_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = BuildRecord("m", BUILT)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    size = len(record.encode(one))
    with pytest.raises(NotNow, match=rf"the disk is full, up to {size} bytes are needed"):
        record.write(tmp_path, one)
    assert list(record.folder(tmp_path).iterdir()) == []


def test_a_folder_that_cannot_be_written_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "catalog").write_text("in the way")

    with pytest.raises(RegistryError, match="catalog"):
        record.write(tmp_path, BuildRecord("m", BUILT))


def test_the_file_has_the_fields_that_the_design_names(tmp_path: Path) -> None:
    record.write(tmp_path, BuildRecord("m", BUILT, EVALUATION, Logged("s", "r", "3")))

    data = json.loads((record.folder(tmp_path) / "m.json").read_text())

    assert data.keys() == {
        "format_version", "model", "key", "request", "model_digest", "artifact", "evaluation",
        "versions", "device_class", "seconds", "peak_bytes", "mlflow",
    }  # fmt: skip
    assert data["format_version"] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"format_version": 1}',
        b'{"format_version": 9}',
        b"\xff",
    ],
)
def test_what_is_no_record_is_told_and_loses_nothing(tmp_path: Path, content: bytes) -> None:
    path = record.folder(tmp_path) / "m.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    found = record.read_all(tmp_path)["m"]

    assert isinstance(found, UnreadableRecord)
    assert found.message.startswith("m.json: expected")
    assert path.read_bytes() == content
