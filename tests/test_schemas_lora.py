"""Which base tensors an adapter changes: names, ties, experts and refusals, from headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.weights import check_adapter
from schemas.header import TensorInfo
from schemas.lora import AdapterError, LoraTarget, lora_targets
from schemas.lora_target import Saved, Tokens, Twin
from schemas.model import Located, ModelHeader
from tests import tiny

Shapes = dict[str, tuple[int, ...]]
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
PREFIX = "base_model.model."
LAYER = "model.layers.0."


def header(shapes: Shapes, dtype: str = "F32") -> dict[str, TensorInfo]:
    return {name: TensorInfo(dtype, shape, 0, 0) for name, shape in shapes.items()}


def pair(module: str, rows: int = 6, columns: int = 4, rank: int = 2) -> Shapes:
    a, b = (f"{PREFIX}{module}.lora_{side}.weight" for side in "AB")
    return {a: (rank, columns), b: (rows, rank)}


def targets(adapter: Shapes, base: Shapes, base_config: Any = None, **config: Any) -> Any:
    return lora_targets(PLAIN | config, header(adapter), header(base), base_config or {})


def names(adapter: Shapes, base: Shapes, **config: Any) -> list[str]:
    return [target.name for target in targets(adapter, base, **config)]


def refused(adapter: Shapes, base: Shapes, base_config: Any = None, **config: Any) -> AdapterError:
    """Return the refusal, and see that the pre-flight tells the same."""
    with pytest.raises(AdapterError) as caught:
        targets(adapter, base, base_config, **config)
    return caught.value


# --- names -----------------------------------------------------------------------------------

QUERY, GATE = "layers.0.self_attn.q_proj", "layers.0.mlp.gate_proj"


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("model.", "model."),
        ("", "model."),
        ("model.", ""),
        ("model.", "model.language_model."),
        ("model.language_model.", "language_model.model."),
        ("transformer.", ""),
        ("encoder.", "bert.encoder."),
    ],
)
def test_one_leading_run_of_names_may_differ(mine: str, theirs: str) -> None:
    adapter = pair(mine + QUERY) | pair(mine + GATE)
    base = {f"{theirs}{module}.weight": (6, 4) for module in (QUERY, GATE)}

    assert names(adapter, base) == sorted(base)


def test_names_that_fit_as_they_are_stay() -> None:
    base: Shapes = {f"{prefix}{QUERY}.weight": (6, 4) for prefix in ("", "model.", "encoder.")}

    assert names(pair(QUERY), base) == [f"{QUERY}.weight"]


def test_a_name_that_may_be_two_is_refused_with_both() -> None:
    base: Shapes = {f"{prefix}.{QUERY}.weight": (6, 4) for prefix in ("encoder", "decoder")}

    found = refused(pair(QUERY), base)

    assert found.tensor == f"{PREFIX}{QUERY}.lora_A.weight"
    assert f"may be decoder.{QUERY}.weight or encoder.{QUERY}.weight in the base" in found.why


def test_the_rule_that_fits_all_names_is_taken() -> None:
    cross = "layers.0.encoder_attn.q_proj"
    base: Shapes = {f"{prefix}.{QUERY}.weight": (6, 4) for prefix in ("encoder", "decoder")}
    base |= {f"decoder.{cross}.weight": (6, 4)}

    found = names(pair(QUERY) | pair(cross), base)

    assert found == [f"decoder.{cross}.weight", f"decoder.{QUERY}.weight"]


@pytest.mark.parametrize(
    "known",
    [
        "model.layers.1.self_attn.q_proj.weight",  # another layer
        "model.layers.0.self_attn.k_proj.weight",  # another module
        "model.layers.0.cross_attn.q_proj.weight",  # another block
        "decoder.layers.0.self_attn.q_proj.weight",  # another stack
        "q_proj.weight",
    ],
)
def test_other_parts_of_a_name_may_not_differ(known: str) -> None:
    found = refused(pair(f"encoder.{QUERY}"), {known: (6, 4)})

    assert found.why == f"the base has no tensor encoder.{QUERY}.weight"


def test_two_modules_may_not_change_one_tensor() -> None:
    found = refused(pair(QUERY) | pair(f"model.{QUERY}"), {f"model.{QUERY}.weight": (6, 4)})

    assert f"model.{QUERY}.weight is changed by {PREFIX}" in found.why


# --- experts ---------------------------------------------------------------------------------

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]


def experts_base(block: str, gate: str, up: str, down: str) -> Shapes:
    matrices: Shapes = {gate: (5, 4), up: (5, 4), down: (4, 5)}
    return {
        f"{LAYER}{block}.experts.{number}.{matrix}.weight": shape
        for number in range(3)
        for matrix, shape in matrices.items()
    } | {f"{LAYER}{block}.gate.weight": (3, 4)}


def experts_adapter(block: str = "mlp", hidden: int = 4, inner: int = 5) -> Shapes:
    module = f"{LAYER}{block}.experts"
    inside = pair(f"{module}.base_layer", rows=2 * inner, columns=hidden, rank=6)
    return inside | pair(module, rows=hidden, columns=inner, rank=6)


@pytest.mark.parametrize(
    "base",
    [
        experts_base("mlp", "gate_proj", "up_proj", "down_proj"),
        experts_base("block_sparse_moe", "w1", "w3", "w2"),
    ],
)
def test_a_packed_product_is_spread_over_the_matrices_of_the_experts(base: Shapes) -> None:
    found = targets(
        experts_adapter() | pair(f"{LAYER}mlp.gate", rows=3), base, target_parameters=EXPERTS
    )

    assert [target.name for target in found] == sorted(base)
    by_name = {target.name.partition(".experts.")[2]: target.product for target in found}
    up = by_name.get("2.up_proj.weight") or by_name["2.w3.weight"]
    assert (up.expert, up.experts, up.rank, up.first, up.last) == (2, 3, 2, 5, 10)
    down = by_name.get("1.down_proj.weight") or by_name["1.w2.weight"]
    assert (down.expert, down.first, down.last) == (1, 0, 4)
    assert down.a == f"{PREFIX}{LAYER}mlp.experts.lora_A.weight"


def test_a_saved_packed_tensor_is_cut_along_the_experts() -> None:
    base = experts_base("mlp", "gate_proj", "up_proj", "down_proj")
    module = f"{PREFIX}{LAYER}mlp.experts"
    saved: Shapes = {f"{module}.gate_up_proj": (3, 10, 4), f"{module}.down_proj": (3, 4, 5)}

    found = {
        target.name: target.saved for target in targets(saved, base, modules_to_save=["experts"])
    }

    assert found[f"{LAYER}mlp.experts.1.up_proj.weight"] == Saved(f"{module}.gate_up_proj", 60)
    assert found[f"{LAYER}mlp.experts.2.down_proj.weight"] == Saved(f"{module}.down_proj", 40)


@pytest.mark.parametrize("block", ["mlp", "block_sparse_moe"])
def test_a_block_is_renamed_only_if_the_base_lacks_its_name(block: str) -> None:
    base = experts_base("block_sparse_moe", "w1", "w3", "w2") | {
        f"{LAYER}{block}.other.weight": (6, 4)
    }

    if block == "mlp":
        why = refused(pair(f"{LAYER}mlp.gate", rows=3), base).why
        assert why == f"the base has no tensor {LAYER}mlp.gate.weight"
    else:
        assert names(pair(f"{LAYER}mlp.gate", rows=3), base) == [f"{LAYER}{block}.gate.weight"]


def test_experts_that_are_not_complete_are_no_packed_tensor() -> None:
    base = experts_base("mlp", "gate_proj", "up_proj", "down_proj")
    del base[f"{LAYER}mlp.experts.1.up_proj.weight"]

    found = refused(experts_adapter(), base, target_parameters=EXPERTS)

    assert "the base has no tensor" not in found.why
    assert "expected rank" in found.why or "fits none" in found.why or "shape" in found.why


@pytest.mark.parametrize("transposed", [True, False])
def test_a_square_packed_tensor_is_read_as_the_oblong_one_beside_it(transposed: bool) -> None:
    module = f"{LAYER}mlp.experts"
    oblong = (3, 4, 8) if transposed else (3, 8, 4)
    base: Shapes = {f"{module}.gate_up_proj": oblong, f"{module}.down_proj": (3, 4, 4)}

    found = targets(experts_adapter(inner=4), base, target_parameters=EXPERTS)

    assert [target.product.transposed for target in found] == [transposed] * 2


def test_a_square_packed_tensor_alone_is_refused() -> None:
    module = f"{LAYER}mlp.experts"
    adapter = pair(module, rows=4, columns=4, rank=6)

    found = refused(adapter, {f"{module}.down_proj": (3, 4, 4)}, target_parameters=EXPERTS)

    assert "nothing beside it tells in which order it is stored" in found.why


def test_factors_must_fit_one_parameter_alone() -> None:
    module = f"{LAYER}mlp.experts"
    base: Shapes = {f"{module}.gate_up_proj": (3, 8, 4), f"{module}.other": (3, 8, 4)}
    both = ["experts.gate_up_proj", "experts.other"]

    many = refused(pair(module, 8, 4, 6), base, target_parameters=both)
    none = refused(pair(module, 7, 4, 6), base, target_parameters=both)
    unnamed = refused(pair(f"{module}.base_layer", 8, 4, 6), base)

    assert "its shape fits more than one of" in many.why
    assert "its shape fits none of" in none.why
    assert unnamed.field == "target_parameters"


def test_the_rank_of_packed_experts_is_checked() -> None:
    module = f"{LAYER}mlp.experts"

    found = refused(
        pair(module, 8, 4, 4), {f"{module}.down_proj": (3, 8, 4)}, target_parameters=EXPERTS
    )

    assert found.why == "expected rank 2 of 3 experts, found 4 and 4"


# --- ties ------------------------------------------------------------------------------------

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
VOCABULARY = {"vocab_size": 9, "architectures": ["LlamaForCausalLM"]}
TIED = VOCABULARY | {"tie_word_embeddings": True}
ROWS: Shapes = {EMBED: (9, 4), f"model.{QUERY}.weight": (6, 4)}
EMBEDDING: Shapes = {
    f"{PREFIX}model.embed_tokens.lora_embedding_A": (2, 9),
    f"{PREFIX}model.embed_tokens.lora_embedding_B": (4, 2),
}
HEAD_PAIR = pair("lm_head", rows=9)
ONE_SIDE = (
    f"{EMBED} is input embedding and output head at once, but only one of them was trained; "
    "train with ensure_weight_tying, or untie the base first"
)


@pytest.mark.parametrize(
    "config",
    [
        TIED,
        VOCABULARY,  # silent: a language head, but one matrix over the vocabulary
        {"text_config": {"vocab_size": 9, "tie_word_embeddings": True}},
    ],
)
@pytest.mark.parametrize(
    ("adapter", "more"),
    [
        (EMBEDDING, {}),
        (HEAD_PAIR, {}),
        ({PREFIX + EMBED: (9, 4)}, {"modules_to_save": ["embed_tokens"]}),
        ({PREFIX + HEAD: (9, 4)}, {"modules_to_save": ["lm_head"]}),
    ],
)
def test_one_side_of_a_tied_matrix_is_refused(config: Any, adapter: Shapes, more: Any) -> None:
    assert refused(adapter, ROWS, config, **more).why == ONE_SIDE


@pytest.mark.parametrize(
    ("config", "base"),
    [
        (TIED | {"architectures": ["LlamaModel"]}, ROWS),  # no head to be tied
        (VOCABULARY | {"tie_word_embeddings": False}, ROWS | {HEAD: (9, 4)}),
        (VOCABULARY, ROWS | {HEAD: (9, 4)}),
        ({}, ROWS),
    ],
)
def test_an_embedding_alone_is_changed_where_nothing_is_tied(config: Any, base: Shapes) -> None:
    (target,) = targets(EMBEDDING, base, config)

    assert target.name == EMBED
    assert target.product.transposed


def test_both_sides_trained_as_one_are_one_target_with_twins() -> None:
    originals: Shapes = {
        f"{PREFIX}{name}.base_layer.weight": (9, 4) for name in ("model.embed_tokens", "lm_head")
    }

    (target,) = targets(EMBEDDING | HEAD_PAIR | originals, ROWS, TIED, ensure_weight_tying=True)

    a, b = HEAD_PAIR
    embedding_a, embedding_b = EMBEDDING
    mine, other = originals
    assert target.name == EMBED
    assert target.saved == Saved(mine)
    assert set(target.twins) == {
        Twin(a, embedding_b, transposed=True),
        Twin(b, embedding_a, transposed=True),
        Twin(other, mine),
    }


def test_both_sides_saved_as_one_are_twins() -> None:
    adapter: Shapes = {PREFIX + EMBED: (9, 4), PREFIX + HEAD: (9, 4)}
    saved = ["embed_tokens", "lm_head"]

    found = targets(adapter, ROWS, TIED, ensure_weight_tying=True, modules_to_save=saved)

    twin = Twin(PREFIX + HEAD, PREFIX + EMBED)
    assert found == (LoraTarget(EMBED, saved=Saved(PREFIX + EMBED), twins=(twin,)),)


def test_sides_of_a_tie_that_disagree_are_refused() -> None:
    tied = {"ensure_weight_tying": True}
    scaled = refused(EMBEDDING | HEAD_PAIR, ROWS, TIED, **tied, alpha_pattern={"lm_head": 1})
    alone = refused(HEAD_PAIR, ROWS, TIED, **tied)
    ranked = refused(
        EMBEDDING | pair("lm_head", rows=9, rank=3), ROWS, TIED, **tied,
        rank_pattern={"lm_head": 3}, alpha_pattern={"lm_head": 6},
    )  # fmt: skip

    assert scaled.why.startswith("expected the scale 2.0 of")
    assert alone.why == "the base has no such tensor"
    assert ranked.why.startswith("expected the shape of")


def test_dora_of_a_tied_matrix_is_refused() -> None:
    magnitude = f"{PREFIX}model.embed_tokens.lora_magnitude_vector"

    found = refused(
        EMBEDDING | {magnitude: (4,)}, ROWS, TIED, use_dora=True, ensure_weight_tying=True
    )

    assert found.tensor == magnitude
    assert "which DoRA scales apart" in found.why


# --- refusals --------------------------------------------------------------------------------

A, B = pair(f"model.{QUERY}")
MATRIX: Shapes = {f"model.{QUERY}.weight": (6, 4)}
BIASED = MATRIX | {f"model.{QUERY}.bias": (6,)}
MODULE = f"{PREFIX}model.{QUERY}"
GOOD = pair(f"model.{QUERY}")
ROWS_TENSOR = f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta"
UNTIED = VOCABULARY | {"tie_word_embeddings": False}
CASES: dict[str, tuple[Shapes, Shapes, dict[str, Any], str]] = {
    "magnitudes without DoRA": (
        GOOD | {f"{MODULE}.lora_magnitude_vector": (6,)}, MATRIX, {},
        f"{MODULE}.lora_magnitude_vector: expected magnitudes only with use_dora",
    ),
    "DoRA without magnitudes": (
        GOOD, MATRIX, {"use_dora": True}, f"use_dora: expected magnitudes beside {A}, found none",
    ),
    "too few magnitudes": (
        GOOD | {f"{MODULE}.lora_magnitude_vector": (4,)}, MATRIX, {"use_dora": True},
        f"{MODULE}.lora_magnitude_vector: expected 6 magnitudes, found shape [4]",
    ),
    "DoRA on packed attention": (
        GOOD | {f"{MODULE}.lora_magnitude_vector": (6,)},
        {f"model.{QUERY}.in_proj_weight": (6, 4)}, {"use_dora": True},
        f"{MODULE}.lora_magnitude_vector: PEFT has no DoRA for this parameter",
    ),
    "a bias of B without lora_bias": (
        GOOD | {f"{MODULE}.lora_B.bias": (6,)}, BIASED, {},
        f"{MODULE}.lora_B.bias: expected a bias of B only with lora_bias",
    ),
    "lora_bias without a bias of B": (
        GOOD, BIASED, {"lora_bias": True}, f"lora_bias: expected a bias beside {B}, found none",
    ),
    "lora_bias on a base without bias": (
        GOOD | {f"{MODULE}.lora_B.bias": (6,)}, MATRIX, {"lora_bias": True},
        f"{MODULE}.lora_B.bias: lora_bias adds to model.{QUERY}.bias, which the base does not have",
    ),
    "a bias of another length": (
        GOOD | {f"{MODULE}.lora_B.bias": (4,)}, BIASED, {"lora_bias": True},
        f"{MODULE}.lora_B.bias: expected shape [6], found [4]",
    ),
    "lora_bias on packed attention": (
        GOOD | {f"{MODULE}.lora_B.bias": (6,)},
        {f"model.{QUERY}.in_proj_weight": (6, 4)}, {"lora_bias": True},
        f"{MODULE}.lora_B.bias: PEFT folds no lora_bias into this parameter",
    ),
    "a saved tensor that nothing names": (
        GOOD | {f"{PREFIX}model.norm.weight": (4,)}, MATRIX | {"model.norm.weight": (4,)}, {},
        f"{PREFIX}model.norm.weight: expected only lora_A and lora_B, and tensors that "
        "modules_to_save or bias name",
    ),
    "a saved bias without bias": (
        GOOD | {f"{MODULE}.base_layer.bias": (6,)}, BIASED, {},
        f"{MODULE}.base_layer.bias: expected only lora_A and lora_B",
    ),
    "a saved head that the base lacks": (
        GOOD | {f"{PREFIX}score.weight": (2, 4)}, MATRIX, {"modules_to_save": ["score"]},
        f"{PREFIX}score.weight: the base has no tensor score.weight",
    ),
    "a saved tensor of another shape": (
        {PREFIX + HEAD: (10, 4)}, ROWS | {HEAD: (9, 4)}, {"modules_to_save": ["lm_head"]},
        f"{PREFIX}{HEAD}: expected shape [9, 4] of {HEAD}, found [10, 4]: "
        "the vocabulary was resized",
    ),
    "a promised tensor that is absent": (
        GOOD, MATRIX | {"lm_head.weight": (9, 4)}, {"modules_to_save": ["lm_head"]},
        "modules_to_save: expected saved tensors of lm_head, found none",
    ),
    "one tensor saved twice": (
        {f"{MODULE}.weight": (6, 4), f"{MODULE}.base_layer.weight": (6, 4)}, MATRIX,
        {"modules_to_save": ["q_proj"]},
        f"{MODULE}.weight: expected one tensor for model.{QUERY}.weight, found",
    ),
    "retrained rows that are absent": (
        GOOD, MATRIX, {"trainable_token_indices": [1]},
        "trainable_token_indices: expected retrained rows, found none",
    ),
    "too few retrained rows": (
        {ROWS_TENSOR: (2, 4)}, ROWS, {"trainable_token_indices": [1]},
        f"{ROWS_TENSOR}: expected 1 rows of {EMBED} ([9, 4]), found [2, 4]",
    ),
    "retrained rows beyond the vocabulary": (
        {ROWS_TENSOR: (1, 4)}, ROWS, {"trainable_token_indices": {"embed_tokens": [9]}},
        "trainable_token_indices: expected token numbers below 9, found 9",
    ),
    "retrained rows of another module": (
        {ROWS_TENSOR: (1, 4)}, ROWS, {"trainable_token_indices": {"lm_head": [1]}},
        f"{ROWS_TENSOR}: expected one entry of trainable_token_indices for model.embed_tokens",
    ),
    "retrained rows and a product": (
        {ROWS_TENSOR: (1, 4)} | EMBEDDING, ROWS, {"trainable_token_indices": [1]},
        f"{ROWS_TENSOR}: retrained rows of {EMBED} and another change of it are not understood",
    ),
    "a row twice": (
        GOOD, MATRIX, {"trainable_token_indices": [1, 1]},
        "trainable_token_indices: expected distinct numbers of tokens, or a map of module to them",
    ),
    "rows that are no numbers": (
        GOOD, MATRIX, {"trainable_token_indices": {"embed_tokens": ["1"]}},
        "trainable_token_indices: expected distinct numbers of tokens",
    ),
    "names that are no names": (
        GOOD, MATRIX, {"modules_to_save": "lm_head"}, "modules_to_save: expected a list of names",
    ),
    "parameters that are no names": (
        GOOD, MATRIX, {"target_parameters": [1]}, "target_parameters: expected a list of names",
    ),
    "a convolution in groups": (
        {f"{PREFIX}conv.lora_A.weight": (2, 8, 3), f"{PREFIX}conv.lora_B.weight": (8, 1, 1)},
        {"conv.weight": (8, 4, 3)}, {},
        f"{PREFIX}conv.lora_A.weight: a convolution in groups",
    ),
    "a kernel of B": (
        {f"{PREFIX}conv.lora_A.weight": (2, 4, 3), f"{PREFIX}conv.lora_B.weight": (8, 2, 3)},
        {"conv.weight": (8, 4, 3)}, {},
        f"{PREFIX}conv.lora_A.weight: expected B with a kernel of 1, found [8, 2, 3]",
    ),
    "another kernel": (
        {f"{PREFIX}conv.lora_A.weight": (2, 4, 5), f"{PREFIX}conv.lora_B.weight": (8, 2, 1)},
        {"conv.weight": (8, 4, 3)}, {},
        f"{PREFIX}conv.lora_A.weight: expected a delta of shape [8, 4, 3] for conv.weight, "
        "found [8, 4, 5]",
    ),
    "a product on a vector": (
        GOOD, {f"model.{QUERY}.weight": (6,)}, {},
        f"{A}: expected at least two dimensions, found 2",
    ),
    "an embedding without its partner": (
        {f"{PREFIX}model.embed_tokens.lora_embedding_A": (2, 9)}, ROWS, {},
        f"{PREFIX}model.embed_tokens.lora_embedding_B: expected this tensor beside",
    ),
    "a bias of B alone": (
        {f"{MODULE}.lora_B.bias": (6,)}, BIASED, {"lora_bias": True},
        f"{MODULE}.lora_A.weight: expected this tensor beside {MODULE}.lora_B.bias, found none",
    ),
    "a tensor of another method": (
        GOOD | {f"{MODULE}.lora_diag": (2,)}, MATRIX, {},
        f"{MODULE}.lora_diag: expected lora_A, lora_B or what else PEFT 0.21 writes for LoRA",
    ),
    "square factors against their layer": (
        pair("h.0.attn.c_proj", 4, 4),
        {"h.0.attn.c_proj.weight": (4, 4), "h.0.c_fc.weight": (4, 8), "h.0.c_fc.bias": (8,)}, {},
        f"{PREFIX}h.0.attn.c_proj.lora_A.weight: fan_in_fan_out is False, but the base stores",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("adapter", "base", "config", "message"), CASES.values(), ids=CASES)
def test_what_does_not_fit_is_refused_by_name(
    adapter: Shapes, base: Shapes, config: dict[str, Any], message: str
) -> None:
    found = refused(adapter, base, UNTIED, **config)

    assert str(found).startswith(message)


REASONS = {
    "alora_invocation_tokens": ([1, 2], "it acts on some tokens only"),
    "arrow_config": ({"top_k": 2}, "it chooses among adapters token by token"),
    "kasa_config": ({"beta": 1}, "it trains against base weights with singular values cut off"),
    "layer_replication": ([[0, 2]], "its model has more layers than the base"),
    "megatron_config": ({"a": 1}, "its layers are Megatron's"),
    "monteclora_config": ({"num_samples": 4}, "its factors are drawn at random"),
    "use_bdlora": ({"nblocks": 2}, "its factors are block-diagonal"),
    "use_qalora": (True, "it acts on pooled inputs of a quantised base"),
}


@pytest.mark.parametrize(("key", "value", "why"), [(k, v, w) for k, (v, w) in REASONS.items()])
def test_what_cannot_be_honoured_is_refused_with_its_reason(key: str, value: Any, why: str) -> None:
    found = refused(GOOD, MATRIX, **{key: value})

    assert found.field == key
    assert found.why.startswith(f"this feature is not understood: {why}")


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16", "olora", "corda", "lora_ga"])
def test_an_initialisation_that_alters_the_base_is_refused_with_the_cure(init: str) -> None:
    found = refused(GOOD, MATRIX, init_lora_weights=init)

    assert found.field == "init_lora_weights"
    assert "path_initial_model_for_weight_conversion" in found.why


@pytest.mark.parametrize(
    "kind", ["IA3", "LOHA", "LOKR", "VERA", "BOFT", "OFT", "ADALORA", "PROMPT_TUNING"]
)
def test_other_kinds_of_adapter_are_refused_by_name(kind: str) -> None:
    assert refused(GOOD, MATRIX, peft_type=kind).why.startswith(f"expected LORA, found {kind}")


@pytest.mark.parametrize(
    "facts",
    [
        {"velora_config": {"num_groups": 2}},
        {"eva_config": {"rho": 2.0}},
        {"corda_config": {"verbose": True}, "init_lora_weights": True},  # converted to plain LoRA
        {"bias": "all"},
    ],
)
def test_what_only_training_reads_is_accepted(facts: dict[str, Any]) -> None:
    beside: Shapes = {f"{MODULE}.lora_velora_embed": (2,)}

    assert [target.name for target in targets(GOOD | beside, MATRIX, **facts)] == [*MATRIX]


QUANTISED = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}


def test_a_quantised_base_is_refused_where_a_target_is_hit() -> None:
    base = header(MATRIX, "U8") | header({"model.norm.weight": (4,)})
    gone = header({f"model.{QUERY}.qweight": (3, 1)}, "I32")

    with pytest.raises(AdapterError) as packed:
        lora_targets(PLAIN, header(GOOD), base, QUANTISED)
    with pytest.raises(AdapterError) as renamed:
        lora_targets(PLAIN, header(GOOD), gone, {"quantization_config": {"quant_method": "gptq"}})

    cure = "name the base in full precision"
    assert packed.value.tensor == A
    assert packed.value.why == (
        f"the base holds integers in model.{QUERY}.weight, which are never merged: "
        f"it is quantised (bitsandbytes); {cure}"
    )
    assert renamed.value.why == (
        f"the base has no tensor model.{QUERY}.weight: it is quantised (gptq); {cure}"
    )


def test_retrained_rows_of_a_tied_matrix_are_one_target() -> None:
    found = targets({ROWS_TENSOR: (2, 4)}, ROWS, TIED, trainable_token_indices=[8, 0])

    assert found == (LoraTarget(EMBED, tokens=Tokens(ROWS_TENSOR, (8, 0))),)


@pytest.mark.parametrize(("adapter", "base", "config", "message"), CASES.values(), ids=CASES)
def test_the_preflight_refuses_the_same(
    tmp_path: Path, adapter: Shapes, base: Shapes, config: dict[str, Any], message: str
) -> None:
    import numpy as np

    zeros = {name: np.zeros(shape, np.float32) for name, shape in adapter.items()}
    tiny.write_safetensors(tmp_path / "adapter_model.safetensors", zeros)
    (tmp_path / "adapter_config.json").write_text(json.dumps(PLAIN | config))
    tensors = {name: Located("model.safetensors", info) for name, info in header(base).items()}

    (finding,) = check_adapter(tmp_path, ModelHeader(tensors, UNTIED))

    assert finding.message
    assert message in f"{finding.field.removeprefix('tensor ')}: {finding.message}"
