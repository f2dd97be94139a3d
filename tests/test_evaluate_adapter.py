"""An adapter is measured on its base, and nothing of it may be left aside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merger.evaluate.adapter import open_adapter
from merger.evaluate.errors import EvaluationError
from merger.evaluate.model import open_model
from tests import merging, tiny
from tests.merging import TermOf

LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    base = tiny.tiny_base(root / "base")
    terms = [TermOf(tiny.tiny_adapter(root / "one", base=base, seed=1), -0.5)]
    merging.build(root / "adapter", base, terms, artifact=merging.adapter())
    merging.build(root / "model", base, terms, dtype="float32")
    return root


def test_an_adapter_on_its_base_answers_as_the_model_of_the_same_recipe(world: Path) -> None:
    folded = open_adapter(world / "adapter", world / "base", "cpu")
    model = open_model(world / "model", "cpu")

    tokens = torch.tensor([[5, 6, 7, 8]])
    mask = torch.ones_like(tokens)
    found, _ = folded.forward(tokens, mask, None)
    expected, _ = model.forward(tokens, mask, None)

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not any("lora_" in name for name, _ in folded.network.named_parameters())


@pytest.mark.parametrize("spoil", ["missing", "unknown"])
def test_factors_without_a_module_and_modules_without_factors_are_refused(
    world: Path, tmp_path: Path, spoil: str
) -> None:
    factors = tiny.read_tensors(world / "adapter")
    if spoil == "missing":
        del factors[LAYER.format("A")]
    else:
        factors[LAYER.format("A").replace("layers.0", "layers.7")] = factors[LAYER.format("A")]
    (tmp_path / "adapter_config.json").write_bytes(
        (world / "adapter/adapter_config.json").read_bytes()
    )
    tiny.write_safetensors(tmp_path / "adapter_model.safetensors", factors)

    with pytest.raises(EvaluationError, match="lora_A"):
        open_adapter(tmp_path, world / "base", "cpu")


def test_a_folder_that_is_no_adapter_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="expected an adapter that PEFT opens"):
        open_adapter(tmp_path, world / "base", "cpu")
