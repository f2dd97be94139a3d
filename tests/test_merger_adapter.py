"""LoRA files as task vectors: numbers by hand, and what is refused by name."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merger.adapter import LoraTaskVector
from merger.blocks import split
from merger.checkpoint import Checkpoint, Values
from merger.errors import InputError
from merger.request import Operand
from tests import tiny

NAME = "model.layers.0.self_attn.v_proj.weight"
OPERAND = Operand("adapter", "a", 1, "sha256:" + "0" * 64)
FACTOR = "base_model.model.model.layers.0.self_attn.v_proj.lora_{}.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("adapters") / "base")


@contextlib.contextmanager
def opened(folder: Path, base: Path, compute: torch.dtype = torch.float32) -> Any:
    with contextlib.closing(Checkpoint(base, "base")) as model:
        vector = LoraTaskVector(
            folder, OPERAND, base=model, values=Values(model, compute, torch.device("cpu"))
        )
        with contextlib.closing(vector):
            yield vector


def write(folder: Path, a: Any, b: Any, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    factors = {FACTOR.format("A"): np.float32(a), FACTOR.format("B"): np.float32(b)}
    tiny.write_safetensors(folder / "adapter_model.safetensors", factors)
    plain = {"peft_type": "LORA", "r": len(a), "lora_alpha": 4, "bias": "none"}
    tiny.write_json(folder / "adapter_config.json", plain | config)
    return folder


def test_the_delta_is_scale_times_b_times_a(base: Path, tmp_path: Path) -> None:
    a = np.zeros((2, 16))
    a[0, :3], a[1, 15] = [1, 2, 3], 5
    b = np.zeros((8, 2))
    b[0], b[7] = [1, 0], [-1, 10]
    folder = write(tmp_path / "a", a, b)

    with opened(folder, base) as vector:
        blocks = split((8, 16))
        delta = torch.cat([vector.delta(NAME).block(block) for block in blocks]).reshape(8, 16)

    assert vector.names == {NAME}
    assert delta[0].tolist() == [2, 4, 6, *[0] * 13]
    assert delta[7].tolist() == [-2, -4, -6, *[0] * 12, 100]
    assert not delta[1:7].any()


def test_rank_pattern_and_rslora_decide_the_scale(base: Path, tmp_path: Path) -> None:
    a, b = np.ones((4, 16)), np.ones((8, 4))
    folder = write(tmp_path / "a", a, b, r=9, rank_pattern={"v_proj": 4}, use_rslora=True)

    with opened(folder, base, torch.float64) as vector:
        delta = vector.delta(NAME).block(split((8, 16))[0])

    assert delta.dtype == torch.float64
    assert set(delta.tolist()) == {4 * 4 / 2}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"use_dora": True}, "use_dora: expected magnitudes beside"),
        (
            {"modules_to_save": ["norm"]},
            "modules_to_save: expected saved tensors of norm, found none",
        ),
        ({"bias": "some"}, "bias: expected none, all or lora_only, found some"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"auto_mapping": {"a": "b"}}, "auto_mapping: refused"),
        ({"peft_type": "IA3"}, "peft_type: expected LORA, found IA3"),
        ({"r": 3}, "expected rank 3, found 2 and 2"),
        ({"fan_in_fan_out": True}, "expected a delta of shape [8, 16]"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    base: Path, tmp_path: Path, config: dict[str, Any], why: str
) -> None:
    folder = write(tmp_path / "a", np.ones((2, 16)), np.ones((8, 2)), **config)

    with pytest.raises(InputError) as caught, opened(folder, base):
        pass

    assert caught.value.term == "adapter a@1"
    assert why in caught.value.why


def test_what_peft_always_writes_is_accepted(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    written = LoraConfig(r=2, lora_alpha=4, target_modules=["v_proj"], task_type="CAUSAL_LM")
    config = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in written.to_dict().items()
    }
    folder = write(tmp_path / "a", np.ones((2, 16)), np.ones((8, 2)), **config)

    with opened(folder, base) as vector:
        assert vector.names == {NAME}


def test_an_unknown_key_and_a_missing_partner_are_refused_by_name(
    base: Path, tmp_path: Path
) -> None:
    good = {FACTOR.format("A"): np.ones((2, 16)), FACTOR.format("B"): np.ones((8, 2))}
    strange = "base_model.model.model.norm.weight"
    missing = "base_model.model.model.layers.9.mlp.up_proj.lora_{}.weight"
    files = {
        strange: good | {strange: np.ones(16)},
        FACTOR.format("B"): {FACTOR.format("A"): np.ones((2, 16))},
        missing.format("A"): good
        | {missing.format("A"): np.ones((2, 16)), missing.format("B"): np.ones((32, 2))},
    }
    for number, (tensor, factors) in enumerate(files.items()):
        folder = write(tmp_path / str(number), np.ones((2, 16)), np.ones((8, 2)))
        arrays = {name: np.float32(factor) for name, factor in factors.items()}
        tiny.write_safetensors(folder / "adapter_model.safetensors", arrays)

        with pytest.raises(InputError) as caught, opened(folder, base):
            pass

        assert caught.value.tensor == tensor


def test_missing_and_broken_files_are_refused(base: Path, tmp_path: Path) -> None:
    good = write(tmp_path / "good", np.ones((2, 16)), np.ones((8, 2)))
    cases = {
        "adapter_config.json": lambda folder: (folder / "adapter_config.json").unlink(),
        "adapter_model.safetensors": lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "expected a header": lambda folder: (folder / "adapter_model.safetensors").write_bytes(
            b"\xff" * 20
        ),
        "pickle": lambda folder: (folder / "extra.bin").write_bytes(b""),
    }
    for number, (why, spoil) in enumerate(cases.items()):
        import shutil

        folder = shutil.copytree(good, tmp_path / str(number))
        spoil(folder)

        with pytest.raises(InputError) as caught, opened(folder, base):
            pass

        assert why in caught.value.why


def test_a_base_tensor_of_integers_is_never_merged(base: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(base, tmp_path / "base")
    path = folder / "model.safetensors"
    tensors = tiny.read_safetensors(path)
    tiny.write_raw(path, tensors | {NAME: ("I16", (8, 16), tensors[NAME][2])})
    adapter = write(tmp_path / "a", np.ones((2, 16)), np.ones((8, 2)))

    with pytest.raises(InputError, match="integers") as caught, opened(adapter, folder):
        pass

    assert caught.value.tensor == FACTOR.format("A")
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 2
