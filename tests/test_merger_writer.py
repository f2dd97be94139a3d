"""The layout is known beforehand, and files are hashed as they are written."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import pytest

from merger import writer as writer_module
from merger.errors import DiskError
from merger.layout import plan_layout
from merger.writer import ArtifactWriter
from schemas.header import TensorInfo, read_header


def info(dtype: str, *shape: int) -> TensorInfo:
    return TensorInfo(dtype, shape, 0, 0)


TENSORS = {
    "a": info("BF16", 100),
    "b": info("F32", 10),
    "c": info("I64", 4),
    "d": info("BF16", 50, 2),
    "e": info("BF16", 3000),
}


def contents(touched: set[str], **options: object) -> list[list[str]]:
    settings = {"dtype": "", "max_shard_size": 10**9} | options
    layout = plan_layout(TENSORS, touched, **settings)  # type: ignore[arg-type]
    return [[entry.name for entry in shard.entries] for shard in layout.shards]


def test_touched_tensors_come_first_and_never_share_a_shard_with_the_others() -> None:
    assert contents({"a", "d"}) == [["a", "d"], ["c", "b", "e"]]
    assert contents({"c", "b", "e"}) == [["c", "b", "e"], ["a", "d"]]
    assert contents(set(TENSORS)) == [["c", "b", "a", "d", "e"]]


def test_shards_are_filled_in_order_and_a_large_tensor_stands_alone() -> None:
    assert contents(set(TENSORS), max_shard_size=1000) == [["c", "b", "a", "d"], ["e"]]
    assert contents(set(TENSORS), max_shard_size=1) == [["c"], ["b"], ["a"], ["d"], ["e"]]


def test_names_headers_and_index_agree_with_what_transformers_writes() -> None:
    layout = plan_layout(TENSORS, {"a", "d"}, dtype="F16", max_shard_size=10**9)

    files = [shard.file for shard in layout.shards]
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert layout.index is not None
    index = json.loads(layout.index)
    assert index["weight_map"] == {"a": files[0], "b": files[1], "c": files[1], "d": files[0]} | {
        "e": files[1]
    }
    assert index["metadata"]["total_size"] == 200 + 20 + 32 + 200 + 6000
    header = layout.shards[0].header
    assert int.from_bytes(header[:8], "little") == len(header) - 8
    assert len(header) % 8 == 0
    assert json.loads(header[8:]) == {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F16", "shape": [100], "data_offsets": [0, 200]},
        "d": {"dtype": "F16", "shape": [50, 2], "data_offsets": [200, 400]},
    }


def test_a_single_file_has_no_index() -> None:
    layout = plan_layout(TENSORS, TENSORS, dtype="", max_shard_size=10**9)

    assert layout.index is None
    assert [shard.file for shard in layout.shards] == ["model.safetensors"]


def test_a_written_shard_keeps_our_own_rules(tmp_path: Path) -> None:
    layout = plan_layout(TENSORS, TENSORS, dtype="", max_shard_size=10**9)
    shard = layout.shards[0]

    with ArtifactWriter(tmp_path / "out") as writer:
        writer.write(shard.file, [shard.header, *(bytes(e.size) for e in shard.entries)])

    path = tmp_path / "out/model.safetensors"
    assert list(read_header(path)) == ["c", "b", "a", "d", "e"]
    assert path.stat().st_size == shard.size == layout.size


def test_hashes_are_those_of_the_bytes_over_many_chunks(tmp_path: Path) -> None:
    chunk = bytes(range(256)) * 40_000

    with ArtifactWriter(tmp_path) as writer:
        writer.write("large", [chunk, b"", chunk[:7], chunk])

    data = (tmp_path / "large").read_bytes()
    assert data == chunk + chunk[:7] + chunk
    assert writer.files["large"].sha256 == hashlib.sha256(data).hexdigest()
    assert writer.files["large"].md5 == hashlib.md5(data).hexdigest()
    assert writer.files["large"].size == len(data)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ArtifactWriter(tmp_path / "out") as writer:
            writer.write("a", [b"1"])
            writer.write("b", iter_and_raise())

    def iter_and_raise():  # type: ignore[no-untyped-def]  # noqa: ANN202
        yield b"2"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert not list((tmp_path / "out").iterdir())


def test_a_disk_that_fills_up_is_told_with_the_bytes_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer_module._HashedFile, "write", full)

    def fill() -> None:
        with ArtifactWriter(tmp_path / "out") as writer:
            writer.reserve(1000)
            writer.write("a", [b"1"])

    with pytest.raises(DiskError) as caught:
        fill()

    assert caught.value.bytes_needed >= 1000
    assert not list((tmp_path / "out").iterdir())
