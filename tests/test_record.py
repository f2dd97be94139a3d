"""Build records survive a round trip, and what is none of ours is told."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from registry import record
from registry.errors import NotNow, RegistryError
from registry.record import BuildRecord, Built, Evaluation, Logged, Rejected, UnreadableRecord
from schemas import canonical

REQUEST = {
    "format_version": 1,
    "numerics": 1,
    "base": {"kind": "base", "name": "b", "digest": "sha256:" + "0" * 64},
    "recipe": {
        "method": "task_arithmetic",
        "parameters": {"lambda": 1.0, "normalize": False},
        "terms": [
            {
                "input": {"kind": "merge", "name": "n", "digest": "sha256:" + "1" * 64},
                "weight": {"layers": [0.5, 1]},
                "parameters": {},
            }
        ],
        "compute": "float32",
    },
    "output": {"form": "model", "dtype": "base", "max_shard_size": 5000},
}
SUITE = {
    "name": "s",
    "digest": "sha256:" + "2" * 64,
    "tasks": [
        {
            "name": "sql",
            "metric": "contains",
            "data": "sql.jsonl",
            "max_new_tokens": 4,
            "options": {},
            "system": None,
        }
    ],
}
BUILT = Built(
    key=canonical.digest(REQUEST),
    request=REQUEST,
    model_digest="sha256:" + "3" * 64,
    artifact={
        "digest": "sha256:" + "4" * 64,
        "files": {"config.json": {"sha256": "0" * 64, "size": 2}},
    },
    versions={"torch": "2"},
    device_class="cpu:AVX2:X",
    seconds=1.5,
    peak_bytes=10,
)
EVALUATION = Evaluation(
    "sha256:" + "5" * 64,
    {"format_version": 1, "evaluator": 1, "model": BUILT.model_digest, "suite": SUITE},
    {"sql": 0.5},
    {"sql": {"at_least": 0.4}},
    baselines={"adapter a@1": {"sql": 1.0}},
)
VERDICT = {
    "task": "sql",
    "condition": "at_least",
    "limit": 0.4,
    "value": 0.1,
    "best": None,
    "passed": False,
    "text": "sql 0.1, wanted ≥ 0.4: failed",
}
REJECTED = Rejected(
    "sha256:" + "6" * 64, "sha256:" + "7" * 64, "sha256:" + "8" * 64, {}, (VERDICT,), {"sql": 0.1}
)
DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]
WHOLE = BuildRecord("m", BUILT, EVALUATION, Logged("s", "r", "3"), REJECTED)


@pytest.mark.parametrize(
    "one",
    [
        WHOLE,
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
    assert found.message.startswith("catalog/builds/m.json: ")
    assert "expected" in found.message
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("model",), "other", "model: expected that of the file's name, m, found other"),
        (("model",), 7, "model: "),
        (("request",), {}, "request.format_version: "),
        (("request", "base"), "x", "request.base: "),
        (("request", "recipe", "terms", 0, "weight"), "x", "request.recipe.terms[0].weight: "),
        (
            ("request", "recipe", "terms", 0, "weight"),
            {"layers": "x"},
            "request.recipe.terms[0].we",
        ),
        (("request", "recipe", "terms", 0, "input", "name"), [1], "request.recipe.terms[0].input."),
        (
            ("request", "recipe", "parameters"),
            {"lambda": 1},
            "request.recipe.parameters.normalize:",
        ),
        (("request", "recipe", "parameters", "lambda"), "x", "request.recipe.parameters.lambda: "),
        (("request", "recipe", "slices"), [{}], "request.recipe.slices[0].term: "),
        (("request", "output"), "x", "request.output: "),
        (
            ("request", "recipe", "terms", 0, "weight"),
            2.0,
            "key: expected that of the request, sha",
        ),
        (("request", "numerics"), float("nan"), "request.numerics: "),
        (
            ("request", "recipe", "parameters", "lambda"),
            float("inf"),
            "key: expected that of the r",
        ),
        (("request", "recipe", "parameters", "deep"), DEEP, "key: expected that of the request, "),
        (("key",), BUILT.model_digest, "key: expected that of the request, sha256:"),
        (("model_digest",), 5, "model_digest: "),
        (("artifact",), {}, "artifact.digest: "),
        (("artifact", "files"), [], "artifact.files: "),
        (("evaluation", "metrics"), {"sql": "x"}, "evaluation.metrics.sql: "),
        (("evaluation", "request"), {}, "evaluation.request.format_version: "),
        (("evaluation", "verdicts"), [{}], "evaluation.verdicts[0].task: "),
        (("rejected", "gates"), {"sql": 1}, "rejected.gates.sql: "),
        (("mlflow",), {"store": 1, "run": "r", "version": "1"}, "mlflow.store: "),
        (("versions",), 3, "versions: "),
        (("seconds",), "x", "seconds: "),
        (("extra",), 1, "extra: "),
    ],
)
def test_what_departs_from_a_record_is_named(
    tmp_path: Path, place: tuple[Any, ...], value: Any, said: str
) -> None:
    data = json.loads(record.encode(WHOLE))
    parent = data
    for part in place[:-1]:
        parent = parent[part]
    parent[place[-1]] = value
    path = record.folder(tmp_path) / "m.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(data))

    found = record.read_all(tmp_path)["m"]

    assert isinstance(found, UnreadableRecord)
    assert found.message.startswith(f"catalog/builds/m.json: {said}")
