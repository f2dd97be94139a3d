"""The worker as others see it: a process, orders in, events out, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from merger import errors, worker
from schemas.digest import hash_folder, model_digest, tree_digest
from tests import merging, tiny
from tests.merging import TermOf

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-m", "merger")


class Worker:
    """A running worker and its two pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def send(self, order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order if isinstance(order, str) else json.dumps(order))
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def events(self) -> list[dict[str, Any]]:
        """Return the events up to the end of one order."""
        assert self.process.stdout is not None
        found = []
        for line in self.process.stdout:
            found.append(json.loads(line))
            if found[-1]["event"] in ("report", "failed"):
                break
        return found

    def end(self) -> int:
        """Close standard input and return the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(10)


@contextmanager
def running() -> Iterator[Worker]:
    process = subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()


def order_of(base: Path, terms: list[TermOf], output: Path, **options: Any) -> dict[str, Any]:
    inputs = {digest: str(folder) for digest, folder in merging.inputs_of(base, terms).items()}
    return {
        "format_version": 1,
        "task": "build",
        "request": merging.request_of(base, terms, **options),
        "inputs": inputs,
        "output": str(output),
        "device": "cpu",
        "threads": 2,
        "memory_bytes": None,
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("worker") / "base")


@pytest.fixture(scope="module")
def terms(base: Path) -> list[TermOf]:
    return [TermOf(tiny.tiny_adapter(base.parent / "sql", base=base, seed=1))]


def test_one_worker_serves_many_orders_and_outlives_failures(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    with running() as served:
        served.send(order_of(base, terms, tmp_path / "one", method="ties"))
        first = served.events()
        served.send("no JSON")
        unreadable = served.events()
        broken = order_of(base, terms, tmp_path / "broken")
        broken["request"]["numerics"] = 0
        served.send(broken)
        refused = served.events()
        served.send(order_of(base, terms, tmp_path / "two", method="ties"))
        second = served.events()
        code = served.end()

    assert code == 0
    assert [event["event"] for event in first][:1] == ["started"]
    assert first[0]["device"] == "cpu"
    assert re.fullmatch(r"cpu:[A-Z0-9]+:\w+", first[0]["device_class"])
    assert {"event": "progress", "done": 20, "total": 20, "unit": "tensors"} in first
    assert unreadable[-1]["kind"] == "input"
    assert refused[-1] == {
        "event": "failed",
        "kind": "input",
        "message": "numerics: this merger computes numerics 2, found 0",
        "tensor": "",
        "term": "",
        "field": "numerics",
    }
    assert not (tmp_path / "broken").exists()
    reports = first[-1], second[-1]
    assert [report["event"] for report in reports] == ["report", "report"]
    assert reports[0]["files"] == reports[1]["files"]
    hashes = hash_folder(tmp_path / "two")
    told = {name: (file["sha256"], file["size"]) for name, file in reports[1]["files"].items()}
    assert told == {name: (file.sha256, file.size) for name, file in hashes.items()}
    assert reports[1]["model_digest"] == model_digest(hashes)
    assert reports[1]["artifact_digest"] == tree_digest(hashes)
    assert set(reports[1]["versions"]) == {"python", "torch", "safetensors", "merge-registry"}
    assert reports[1]["statistics"]["terms"][0]["term"] == "adapter sql@1"
    assert 50e6 < reports[1]["peak_bytes"] < 1e9
    assert reports[1]["seconds"] > 0


def test_md5_is_that_of_the_file(base: Path, terms: list[TermOf], tmp_path: Path) -> None:
    import hashlib

    built = merging.build(tmp_path, base, terms)

    for name, file in built.files.items():
        assert file.md5 == hashlib.md5((tmp_path / name).read_bytes()).hexdigest()


def test_a_worker_ends_at_once_with_its_standard_input(tmp_path: Path) -> None:
    # Large enough to be busy for seconds.
    base = tiny.tiny_base(tmp_path / "base", layers=1, hidden=16)
    shape = (2048, 4096)
    import numpy as np

    name = "model.layers.0.mlp.up_proj.weight"
    for folder in ("base", "ft"):
        (tmp_path / folder).mkdir(exist_ok=True)
        numbers = np.random.default_rng(len(folder)).standard_normal(shape, np.float32)
        tiny.write_safetensors(tmp_path / folder / "model.safetensors", {name: numbers})
        (tmp_path / folder / "config.json").write_text("{}")
    terms = [TermOf(tmp_path / "ft", 1.0, "checkpoint")]
    order = order_of(base, terms, tmp_path / "out", method="ties", scope="model", tie="majority")

    with running() as served:
        served.send(order)
        assert served.process.stdout is not None
        assert json.loads(served.process.stdout.readline())["event"] == "started"
        before = time.monotonic()
        code = served.end()
        seconds = time.monotonic() - before

    assert code == -signal.SIGKILL
    assert seconds < 5
    assert not (tmp_path / "out/config.json").exists()


def test_help_names_orders_and_events_without_importing_torch() -> None:
    code = "import sys, runpy\nsys.argv = ['merger', '--help']\ntry:\n"
    code += "    runpy.run_module('merger', run_name='__main__')\nexcept SystemExit:\n    pass\n"
    code += "print([name for name in ('torch', 'numpy', 'peft', 'transformers') if name in sys.modules])"

    done = subprocess.run(
        (sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "work order" in done.stdout
    assert "build" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_building_imports_neither_peft_nor_transformers(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    order = order_of(base, terms, tmp_path / "out")
    code = "import sys, json\nfrom merger import worker\n"
    code += f"assert worker.carry_out(json.loads({json.dumps(order)!r}), lambda event: None)\n"
    code += "print([n for n in ('peft', 'transformers', 'safetensors') if n in sys.modules])"

    done = subprocess.run(
        (sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_what_an_order_leaves_behind_is_garbage_to_be_collected(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    """What torch brought is kept from the collector once; of a later order nothing is."""
    first, second = (order_of(base, terms, tmp_path / name) for name in ("first", "second"))
    code = "import gc, json, weakref\nfrom merger import worker\nclass Loop: pass\n"
    code += f"assert worker.carry_out(json.loads({json.dumps(first)!r}), lambda event: None)\n"
    code += "loop = Loop(); loop.own = loop; known = weakref.ref(loop); del loop\n"
    code += f"assert worker.carry_out(json.loads({json.dumps(second)!r}), lambda event: None)\n"
    code += "gc.collect(); print(gc.isenabled(), gc.get_freeze_count() > 100_000, known())"

    done = subprocess.run(
        (sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "True True None"


def run_build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*COMMAND, "build", *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_one_shot_form_builds_from_a_recipe(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    merging.build(tmp_path / "first", base, terms)
    inputs = merging.inputs_of(base, terms)
    folders = [text for item in inputs.items() for text in ("--input", "=".join(map(str, item)))]
    recipe = str(tmp_path / "first/recipe.json")

    done = run_build("--request", recipe, *folders, "--output", str(tmp_path / "again"))
    failed = run_build("--request", recipe, "--output", str(tmp_path / "none"))

    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "report"
    assert hash_folder(tmp_path / "again") == hash_folder(tmp_path / "first")
    assert failed.returncode == 1
    assert json.loads(failed.stdout.splitlines()[-1])["kind"] == "input"


def test_wrong_usage_exits_64(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text("{}")
    request, output = str(tmp_path / "request.json"), str(tmp_path / "out")

    no_digest = run_build("--request", request, "--input", "base", "--output", output)
    no_file = run_build("--request", str(tmp_path / "none.json"), "--output", output)

    assert (no_digest.returncode, no_file.returncode) == (64, 64)
    assert "expected sha256:HEX=DIR, found base" in no_digest.stderr
    assert "expected a JSON file" in no_file.stderr


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format_version": 2}, "format_version"),
        ({"task": "train"}, "task"),
        ({"device": "tpu"}, "device"),
        ({"threads": 0}, "threads"),
        ({"threads": "many"}, "threads"),
        ({"memory_bytes": -1}, "memory_bytes"),
    ],
)
def test_an_order_of_another_shape_is_refused(
    base: Path, terms: list[TermOf], tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    events: list[dict[str, Any]] = []
    order = order_of(base, terms, tmp_path / "out") | change

    assert not worker.carry_out(order, lambda event: events.append(dict(event)))

    assert (events[-1]["kind"], events[-1]["field"]) == ("input", field)


def test_an_order_is_carried_out_in_this_process_too(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    import torch

    events: list[dict[str, Any]] = []
    order = order_of(base, terms, tmp_path / "out") | {"device": "auto", "threads": None}

    assert worker.carry_out(order, lambda event: events.append(dict(event)))
    if not torch.cuda.is_available():
        cuda = order | {"device": "cuda"}
        assert not worker.carry_out(cuda, lambda event: events.append(dict(event)))
        assert events[-1]["message"] == "device: expected a GPU, torch finds none"

    report = next(event for event in events if event["event"] == "report")
    assert report["artifact_digest"] == tree_digest(hash_folder(tmp_path / "out"))


def test_an_evaluation_without_its_folders_is_refused(base: Path) -> None:
    events: list[dict[str, Any]] = []
    asked = {"model": "sha256:0", "suite": {"digest": "sha256:1"}}
    order = {"format_version": 1, "task": "evaluate", "request": asked, "inputs": {}}

    worker.carry_out(order | {"device": "cpu"}, lambda event: events.append(dict(event)))

    assert events[-1]["message"] == "inputs: no folder was given for sha256:0"


def test_an_order_without_a_field_is_refused(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    worker.carry_out(
        {"format_version": 1, "task": "build"}, lambda event: events.append(dict(event))
    )

    assert events[-1]["field"] == "request"


def test_each_kind_of_failure_has_its_name() -> None:
    import torch

    allocator = "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: not enough memory"
    kinds = {
        "input": errors.InputError("x"),
        "disk": errors.DiskError(5, 3),
        "memory": MemoryError(),
        "bug": ValueError("x"),
    }

    assert {kind: errors.kind_of(error) for kind, error in kinds.items()} == {
        kind: kind for kind in kinds
    }
    assert errors.kind_of(OSError(28, "No space left on device")) == "disk"
    assert errors.kind_of(OSError(2, "No such file")) == "bug"
    assert errors.kind_of(torch.OutOfMemoryError("CUDA out of memory")) == "memory"
    assert errors.kind_of(RuntimeError(allocator)) == "memory"
    assert errors.kind_of(RuntimeError("shapes")) == "bug"
    assert errors.as_event(errors.DiskError(5, 3))["bytes_needed"] == 5
    assert errors.as_event(MemoryError())["message"] == "MemoryError"


def test_a_bug_leaves_a_traceback_on_standard_error(
    base: Path, terms: list[TermOf], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[dict[str, Any]] = []
    order = order_of(base, terms, tmp_path / "out") | {"inputs": 3}

    worker.carry_out(order, lambda event: events.append(dict(event)))

    assert events[-1]["kind"] == "bug"
    assert "Traceback" in capfd.readouterr().err


def test_progress_is_told_at_most_ten_times_a_second_and_at_the_end() -> None:
    events: list[Any] = []
    tell = worker._Throttled(events.append)

    for done in range(1, 1001):
        tell(done, 1000, "tensors")

    assert len(events) < 10
    assert events[-1] == {"event": "progress", "done": 1000, "total": 1000, "unit": "tensors"}


@pytest.mark.gpu
def test_a_gpu_gives_the_bytes_of_itself(base: Path, terms: list[TermOf], tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    events: list[dict[str, Any]] = []
    for name in ("a", "b"):
        order = order_of(base, terms, tmp_path / name, method="ties") | {"device": "cuda"}
        assert worker.carry_out(order, lambda event: events.append(dict(event)))

    reports = [event for event in events if event["event"] == "report"]
    assert reports[0]["artifact_digest"] == reports[1]["artifact_digest"]
    assert reports[0]["device_class"].startswith("cuda:")


def test_the_process_group_is_only_ended_by_its_leader() -> None:
    # A worker that shares its starter's group must not take the starter along.
    script = "import subprocess, sys, time\n"
    script += "p = subprocess.Popen([sys.executable, '-m', 'merger'], stdin=subprocess.PIPE)\n"
    script += "p.stdin.close()\nprint(p.wait(20))\n"

    done = subprocess.run(
        (sys.executable, "-c", script),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )

    assert done.stdout.strip() == "0"
