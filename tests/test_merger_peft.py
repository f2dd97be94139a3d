"""A LoRA delta equals what PEFT folds into the base, for every kind of adapter that we merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import merging, oracle, tiny
from tests.merging import TermOf

ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all linear modules": {
        "targets": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    },
    "bfloat16 factors": {"dtype": "bfloat16"},
    "float16 factors": {"dtype": "float16"},
    "rank one": {"rank": 1, "alpha": 3},
    "rsLoRA": {"rank": 8, "config": {"use_rslora": True}},
    "alpha pattern": {"config": {"alpha_pattern": {"q_proj": 3, "layers.1.self_attn.v_proj": 5}}},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", ADAPTERS.values(), ids=ADAPTERS)
def test_a_single_adapter_equals_pefts_fold(tmp_path: Path, options: dict[str, Any]) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    adapter = tiny.tiny_adapter(tmp_path / "adapter", base=base, seed=3, **options)

    merging.build(tmp_path / "exact", base, [TermOf(adapter)], dtype="float32", compute="float64")
    merging.build(tmp_path / "plain", base, [TermOf(adapter)])

    folded = oracle.folded_by_peft(base, adapter)
    before, exact, plain = (
        tiny.read_tensors(tmp_path / name) for name in ("base", "exact", "plain")
    )
    half = options.get("dtype", "float32") != "float32"
    changed = 0
    for name, array in before.items():
        original, expected = torch.from_numpy(array.copy()), folded[name]
        # PEFT rounds the delta to the factors' dtype; ours stays in the compute dtype.
        tolerance = 2e-3 if half else 2e-7
        torch.testing.assert_close(
            torch.from_numpy(exact[name].copy()), expected, atol=tolerance, rtol=1e-6
        )
        if not half:
            rounded = expected.to(torch.bfloat16)
            units = oracle.bfloat16_units(torch.from_numpy(plain[name].copy()), rounded, original)
            assert float(units.max()) <= 1.0
        changed += not torch.equal(original, expected)
    assert changed >= 4


@pytest.mark.filterwarnings("ignore")
def test_a_transposed_weight_takes_the_transposed_delta(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=40, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    lora = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["c_attn"],
        fan_in_fan_out=True,
        task_type="CAUSAL_LM",
    )
    trained = get_peft_model(model, lora)
    for name, parameter in trained.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    trained.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter/README.md").unlink(missing_ok=True)

    merging.build(tmp_path / "out", tmp_path / "base", [TermOf(tmp_path / "adapter")])

    loaded = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    folded = PeftModel.from_pretrained(loaded, tmp_path / "adapter").merge_and_unload()
    name = "transformer.h.0.attn.c_attn.weight"
    expected = folded.state_dict()[name]
    built = torch.from_numpy(tiny.read_tensors(tmp_path / "out")[name].copy())
    assert expected.shape == (16, 48)
    torch.testing.assert_close(built, expected, atol=2e-7, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_artifact_opens_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tiny.tiny_base(tmp_path / "base", sharded=True)
    adapter = tiny.tiny_adapter(tmp_path / "adapter", base=base, seed=3)
    merging.build(tmp_path / "out", base, [TermOf(adapter, -0.5)], max_shard_size=4000)

    model, found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")

    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    messages = [{"role": "user", "content": "the end"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=2).shape[1] == ids["input_ids"].shape[1] + 2
