"""Peak memory of a worker process: a few times the largest tensor, never the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.merging import TermOf
from tests.test_merger_worker import COMMAND, ROOT, order_of

MEBIBYTE = 1 << 20
LARGEST = (8192, 1024)  # 16 MiB in bfloat16
LAYERS = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 400 MiB in three shards, and two adapters that touch all of it."""
    folder = tmp_path_factory.mktemp("memory")
    (folder / "base").mkdir()
    tiny.write_json(folder / "base/config.json", {"model_type": "llama"})
    row = np.random.default_rng(0).standard_normal(LARGEST[1], np.float32)
    tensor = np.broadcast_to(row, LARGEST)
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(LAYERS)]
    tiny.write_shards(folder / "base", dict.fromkeys(names, tensor), dtype="bfloat16")
    for seed in (1, 2):
        numbers = np.random.default_rng(seed)
        factors = {}
        for name in names:
            module = "base_model.model." + name.removesuffix(".weight")
            for side, shape in (("A", (8, LARGEST[1])), ("B", (LARGEST[0], 8))):
                factors[f"{module}.lora_{side}.weight"] = numbers.standard_normal(shape, np.float32)
        adapter = folder / f"adapter{seed}"
        adapter.mkdir()
        tiny.write_safetensors(adapter / "adapter_model.safetensors", factors)
        tiny.write_json(
            adapter / "adapter_config.json", {"peft_type": "LORA", "r": 8, "lora_alpha": 8}
        )
    return folder


def empty_worker_bytes() -> int:
    """Return what an interpreter with torch alone takes."""
    code = "import torch, numpy\nprint(open('/proc/self/status').read())"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_a_build_takes_a_few_times_the_largest_tensor(
    world: Path, tmp_path: Path, scope: str
) -> None:
    terms = [TermOf(world / "adapter1", 1.0), TermOf(world / "adapter2", -0.5)]
    order = order_of(world / "base", terms, tmp_path / "out", method="ties", scope=scope)

    with subprocess.Popen(
        COMMAND, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        report = {}
        while report.get("event") not in ("report", "failed"):
            report = json.loads(process.stdout.readline())
        process.stdin.close()

    largest = LARGEST[0] * LARGEST[1] * 2
    model = largest * LAYERS
    taken = report["peak_bytes"] - empty_worker_bytes()
    assert taken < 12 * largest + 64 * MEBIBYTE < 0.7 * model
