"""Deltas of an adapter by hand and by blocks, and what PEFT's fold cannot tell."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merger.adapter import LoraTaskVector
from merger.adapter_deltas import DoraDelta, ProductDelta, SavedDelta, TokensDelta
from merger.blocks import Block, split
from merger.checkpoint import Checkpoint, Values
from merger.errors import InputError
from merger.request import Operand
from tests import merging, tiny, tiny_models
from tests.merging import TermOf
from tests.test_adapter_table import deltas, error

OPERAND = Operand("adapter", "a", 1, "sha256:" + "0" * 64)
QUIET = pytest.mark.filterwarnings("ignore")


@contextlib.contextmanager
def opened(base: Path, adapter: Path) -> Iterator[LoraTaskVector]:
    with contextlib.closing(Checkpoint(base, "base")) as model:
        vector = LoraTaskVector(
            adapter, OPERAND, base=model, values=Values(model, torch.float32, torch.device("cpu"))
        )
        with contextlib.closing(vector):
            yield vector


def rows_of(values: torch.Tensor) -> Any:
    return lambda block: values.reshape(-1)[block.start : block.stop]


def whole(delta: Any, shape: tuple[int, ...], step: int) -> torch.Tensor:
    """Return a delta formed in blocks of `step` rows."""
    columns = int(np.prod(shape[1:]))
    firsts = range(0, shape[0], step)
    blocks = [Block(first, min(first + step, shape[0]), columns) for first in firsts]
    return torch.cat([delta.block(block) for block in blocks]).reshape(shape)


# --- by hand and by blocks -------------------------------------------------------------------


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("step", [1, 3, 7])
def test_dora_is_the_same_in_blocks_of_any_size(by_column: bool, step: int) -> None:
    generator = torch.Generator().manual_seed(3)
    left, right, base = (
        torch.randn(*size, generator=generator) for size in ((7, 2), (2, 5), (7, 5))
    )
    magnitude = torch.rand(5 if by_column else 7, generator=generator) + 0.5
    blocks = [Block(first, min(first + step, 7), 5) for first in range(0, 7, step)]
    product = ProductDelta(left, right)

    delta = DoraDelta(product, magnitude, rows_of(base), None, blocks, by_column=by_column)

    changed = base.double() + left.double() @ right.double()
    norms = changed.norm(dim=0 if by_column else 1, keepdim=True)
    wanted = magnitude.double() if by_column else magnitude.double()[:, None]
    expected = wanted * changed / norms - base.double()
    torch.testing.assert_close(whole(delta, (7, 5), step).double(), expected, atol=1e-6, rtol=1e-6)
    assert delta.factors() is None


def test_dora_on_a_saved_tensor_counts_from_the_base() -> None:
    base, saved = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    product = ProductDelta(torch.tensor([[1.0]]), torch.tensor([[0.0, 3.0]]))
    blocks = split((1, 2))

    delta = DoraDelta(
        product, torch.tensor([10.0]), rows_of(saved), rows_of(base), blocks, by_column=False
    )

    # 10 · (0, 5) / 5 - (3, 4)
    assert delta.block(blocks[0]).tolist() == [-3.0, 6.0]


def test_a_saved_tensor_and_what_is_added_to_it() -> None:
    base, saved = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.5, 2.0], [3.0, 8.0]])
    product = ProductDelta(torch.tensor([[1.0], [0.0]]), torch.tensor([[10.0, 20.0]]))

    alone = SavedDelta(rows_of(saved), rows_of(base), None)
    added = SavedDelta(rows_of(saved), rows_of(base), product)

    assert whole(alone, (2, 2), 1).tolist() == [[-0.5, 0.0], [0.0, 4.0]]
    assert whole(added, (2, 2), 1).tolist() == [[9.5, 20.0], [0.0, 4.0]]
    assert alone.factors() is None


@pytest.mark.parametrize("step", [1, 2, 4])
def test_retrained_rows_are_replaced_and_the_others_stay(step: int) -> None:
    base = torch.arange(8.0).reshape(4, 2)
    rows = torch.tensor([[100.0, 100.0], [7.0, 7.0]])

    delta = TokensDelta(rows, [3, 0], rows_of(base))

    assert whole(delta, (4, 2), step).tolist() == [[7.0, 6.0], [0, 0], [0, 0], [94.0, 93.0]]


# --- what PEFT's fold cannot tell ------------------------------------------------------------


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_base("Llama, tied", tmp_path_factory.mktemp("kinds") / "tied")


@QUIET
@pytest.mark.parametrize("targets", [["embed_tokens"], ["embed_tokens", "lm_head"], ["lm_head"]])
def test_a_product_on_both_sides_of_a_tie_is_folded_once(
    tied: Path, tmp_path: Path, targets: list[str]
) -> None:
    from peft import PeftModel

    options = {"target_modules": targets, "ensure_weight_tying": True}
    adapter = tiny_models.write_adapter(tied, tmp_path / "adapter", **options)
    ids = torch.tensor([[1, 5, 3, 30, 2]])

    merging.build(tmp_path / "out", tied, [TermOf(adapter)])

    trained = PeftModel.from_pretrained(tiny_models.load(tied), adapter)(input_ids=ids).logits
    built = tiny_models.load(tmp_path / "out")(input_ids=ids).logits
    plain = tiny_models.load(tied)(input_ids=ids).logits
    torch.testing.assert_close(built, trained, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(built, plain, atol=1e-2)


@QUIET
def test_sides_of_a_tie_that_were_trained_apart_are_refused(tied: Path, tmp_path: Path) -> None:
    options = {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}
    adapter = tiny_models.write_adapter(tied, tmp_path / "adapter", **options)
    file = adapter / "adapter_model.safetensors"
    tensors = tiny.read_tensors(adapter)
    other = "base_model.model.lm_head.lora_B.weight"
    tensors[other][0, 0] += 1
    tiny.write_safetensors(file, tensors)

    with pytest.raises(InputError, match="the base has one matrix for both") as caught:
        deltas(tied, adapter)

    assert caught.value.tensor == other


@QUIET
def test_a_converted_pissa_adapter_is_plain_lora(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_models.write_base("Llama", tmp_path / "base")
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"],
        init_lora_weights="pissa", task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(tiny_models.load(base), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(
        tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )

    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["r"] == 8
    assert error(base, tmp_path / "adapter", tmp_path / "folded") <= 1e-6


@QUIET
def test_an_original_embedding_that_differs_from_the_base_is_honoured(tmp_path: Path) -> None:
    base = tiny_models.write_base("Llama", tmp_path / "base")
    adapter = tiny_models.write_adapter(base, tmp_path / "a", target_modules=["embed_tokens"])
    name = "model.embed_tokens.weight"
    with opened(base, adapter) as vector:
        assert isinstance(vector.delta(name), ProductDelta)
    before = deltas(base, adapter)[name]
    tensors = tiny.read_tensors(adapter)
    tensors["base_model.model.model.embed_tokens.base_layer.weight"][3, 1] += 0.5
    tiny.write_safetensors(adapter / "adapter_model.safetensors", tensors)

    after = deltas(base, adapter)[name]

    assert torch.allclose((after - before)[3, 1], torch.tensor(0.5))
    assert int(((after - before).abs() > 1e-6).sum()) == 1
    assert error(base, adapter, tmp_path / "folded") <= 1e-6


@QUIET
def test_an_adapter_of_the_bare_model_fits_the_model_with_a_head(tmp_path: Path) -> None:
    from transformers import BertForMaskedLM, BertModel

    whole_base = tiny_models.write_base("BERT", tmp_path / "whole")
    BertForMaskedLM.from_pretrained(whole_base).bert.save_pretrained(tmp_path / "bare")
    assert json.loads((tmp_path / "bare/config.json").read_text())["architectures"] == [
        BertModel.__name__
    ]
    options = {"target_modules": ["query", "word_embeddings"]}
    adapter = tiny_models.write_adapter(tmp_path / "bare", tmp_path / "adapter", **options)

    bare = deltas(tmp_path / "bare", adapter)
    with pytest.raises(InputError, match="only one of them was trained"):
        deltas(whole_base, adapter)
    options = {"target_modules": ["query", "intermediate.dense"]}
    adapter = tiny_models.write_adapter(tmp_path / "bare", tmp_path / "other", **options)
    headed = deltas(whole_base, adapter)

    assert "embeddings.word_embeddings.weight" in bare
    alone = deltas(tmp_path / "bare", adapter)
    assert {f"bert.{name}" for name in alone} == set(headed)
    assert all(torch.equal(delta, headed[f"bert.{name}"]) for name, delta in alone.items())


# --- factors and refusals --------------------------------------------------------------------


@QUIET
@pytest.mark.parametrize(
    ("name", "options", "products"),
    [
        ("GPT-2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}, True),
        ("Llama", {"target_modules": ["q_proj", "embed_tokens"]}, True),
        ("Qwen3-MoE", {"target_modules": [], "target_parameters": ["experts.down_proj"]}, True),
        ("gpt-oss", {"target_modules": [], "target_parameters": ["experts.down_proj"]}, False),
        ("ResNet", {"target_modules": ["convolution"]}, False),
        ("Llama", {"target_modules": ["q_proj"], "use_dora": True}, False),
    ],
)
def test_the_factors_of_a_matrix_are_known_and_multiply_to_its_delta(
    tmp_path: Path, name: str, options: dict[str, Any], products: bool
) -> None:
    base = tiny_models.write_base(name, tmp_path / "base")
    adapter = tiny_models.write_adapter(base, tmp_path / "adapter", **options)
    expected = deltas(base, adapter)

    with opened(base, adapter) as vector:
        for tensor in vector.names:
            factors = vector.delta(tensor).factors()
            assert (factors is not None) == products
            if factors:
                assert torch.equal(factors[0] @ factors[1], expected[tensor])


@QUIET
@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("down_proj.lora_A.weight", {}),
        ("lora_magnitude_vector", {"use_dora": True}),
        ("lora_B.bias", {"lora_bias": True, "target_modules": ["q_proj"]}),
        ("base_layer.bias", {"bias": "lora_only", "target_modules": ["q_proj"]}),
        ("lm_head.weight", {"modules_to_save": ["lm_head"]}),
        ("trainable_tokens_delta", {"trainable_token_indices": [1, 3]}),
        ("lora_embedding_B", {"target_modules": ["embed_tokens"]}),
    ],
)
def test_a_value_that_is_not_finite_is_refused_by_its_tensor(
    tmp_path: Path, part: str, options: dict[str, Any]
) -> None:
    base = tiny_models.write_base("Llama", tmp_path / "base")
    plain = {"target_modules": ["q_proj", "down_proj"]}
    adapter = tiny_models.write_adapter(base, tmp_path / "adapter", **(plain | options))
    tensors = tiny.read_tensors(adapter)
    spoilt = next(name for name in tensors if name.endswith(part))
    tensors[spoilt].reshape(-1)[-1] = np.inf
    tiny.write_safetensors(adapter / "adapter_model.safetensors", tensors)

    with pytest.raises(InputError, match="non-finite value") as caught:
        deltas(base, adapter)

    assert caught.value.tensor == spoilt
    assert caught.value.term == "adapter a@1"


@QUIET
def test_a_build_with_every_kind_at_once_does_not_depend_on_threads(tmp_path: Path) -> None:
    base = tiny_models.write_base("Qwen3-MoE", tmp_path / "base")
    dora = tiny_models.write_adapter(
        base, tmp_path / "dora", target_modules=["q_proj", "embed_tokens"], use_dora=True,
        modules_to_save=["lm_head"],
    )  # fmt: skip
    experts = tiny_models.write_adapter(
        base, tmp_path / "experts", target_modules=["o_proj"],
        target_parameters=["experts.gate_up_proj", "experts.down_proj"],
    )  # fmt: skip
    terms = [TermOf(dora, 0.7), TermOf(experts, -0.5)]

    one, two = (
        merging.build(tmp_path / f"out{threads}", base, terms, threads=threads, method="ties")
        for threads in (1, 2)
    )

    assert one.artifact_digest == two.artifact_digest
    assert one.statistics
