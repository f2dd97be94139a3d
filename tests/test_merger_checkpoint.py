"""Reading models piece by piece: every dtype, shards, truncated and refused files."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from merger.blocks import Block
from merger.checkpoint import Checkpoint, ModelTaskVector, TensorFile, Values
from merger.errors import InputError
from merger.request import Operand
from tests import tiny

NAME = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("sharded", [False, True])
def test_every_tensor_reads_as_safetensors_reads_it(
    tmp_path: Path, dtype: str, *, sharded: bool
) -> None:
    from safetensors import safe_open

    base = tiny.tiny_base(tmp_path, dtype=dtype, sharded=sharded)
    files = sorted(base.glob("*.safetensors"))

    with contextlib.closing(Checkpoint(base, "base")) as model:
        for path in files:
            with safe_open(path, "pt") as expected:
                for name in expected.keys():  # noqa: SIM118 not a mapping
                    tensor = expected.get_tensor(name)
                    rows, columns = tensor.shape[0], tensor[0].numel()
                    found = model.read_block(name, Block(1, rows, columns))
                    assert found.dtype == tensor.dtype
                    assert torch.equal(found, tensor[1:].reshape(-1))


def test_a_model_is_the_base_plus_its_task_vector(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    other = tiny.tiny_checkpoint(tmp_path / "other", base=base, seed=1)

    with (
        contextlib.closing(Checkpoint(base, "base")) as model,
        contextlib.closing(Checkpoint(other, "other")) as changed,
    ):
        vector = ModelTaskVector(
            changed,
            Operand("checkpoint", "other", 1, "sha256:" + "0" * 64),
            Values(model, torch.float64, torch.device("cpu")),
        )
        with contextlib.closing(vector):
            delta = vector.delta(NAME).block(Block(2, 4, 32))

    expected = tiny.read_tensors(other)[NAME][2:4] - tiny.read_tensors(base)[NAME][2:4].astype(
        float
    )
    assert delta.tolist() == expected.ravel().tolist()


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path)
    path = base / "model.safetensors"

    with contextlib.closing(TensorFile(path)) as file:
        with path.open("r+b") as opened:
            opened.truncate(path.stat().st_size - 10)
        with pytest.raises(InputError, match=r"expected .* more bytes, found none"):
            file.read("model.norm.weight")


def test_a_folder_that_is_no_model_is_refused_under_its_name(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    (base / "pytorch_model.bin").write_bytes(b"")

    for folder in (base, tmp_path / "absent"):
        with pytest.raises(InputError) as caught:
            Checkpoint(folder, "checkpoint x@1")
        assert caught.value.term == "checkpoint x@1"
