"""passthrough: stacks of layers against models put together by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import schemas
from merger.errors import InputError
from tests import merging, tiny
from tests.merging import TermOf
from tests.test_merger_vocabulary import retokenized

Raw = dict[str, tuple[str, tuple[int, ...], bytes]]


def stack_request(base: Path, terms: list[TermOf], slices: list[Any], **output: Any) -> Any:
    """Return a request of slices given as (term or None, first, last)."""
    data = merging.request_of(base, terms, "task_arithmetic", **output)
    plain = [{"term": term, "layers": [first, last]} for term, first, last in slices]
    data["recipe"] |= {"method": "passthrough", "parameters": {}, "slices": plain}
    return data


def stack(
    output: Path, base: Path, terms: list[TermOf], slices: list[Any], **options: Any
) -> merging.engine.Built:
    threads = options.pop("threads", 2)
    data = stack_request(base, terms, slices, **options)
    return merging.build_request(output, data, merging.inputs_of(base, terms), threads=threads)


def by_hand(slices: list[tuple[Raw, int, int]]) -> Raw:
    """Put a model together by copying tensors, Llama's names."""
    found: Raw = {}
    position = 0
    for tensors, first, last in slices:
        for layer in range(first, last):
            for name, tensor in tensors.items():
                before, dot, rest = name.partition(f"model.layers.{layer}.")
                if dot and not before:
                    found[f"model.layers.{position}.{rest}"] = tensor
            position += 1
    found["model.embed_tokens.weight"] = slices[0][0]["model.embed_tokens.weight"]
    for name in ("model.norm.weight", "lm_head.weight"):
        if name in slices[-1][0]:
            found[name] = slices[-1][0][name]
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("world") / "base", layers=4, tied=False)


@pytest.fixture(scope="module")
def adapter(base: Path) -> TermOf:
    return TermOf(tiny.tiny_adapter(base.parent / "adapter", base=base, seed=1))


@pytest.fixture(scope="module")
def checkpoint(base: Path) -> TermOf:
    folder = tiny.tiny_checkpoint(base.parent / "tuned", base=base, seed=2)
    return TermOf(folder, kind="checkpoint")


def test_one_full_slice_of_the_base_is_the_base_byte_for_byte(base: Path, tmp_path: Path) -> None:
    stack(tmp_path / "out", base, [], [(None, 0, 4)])

    assert merging.raw_tensors(tmp_path / "out") == merging.raw_tensors(base)
    assert (tmp_path / "out/config.json").read_bytes() == (base / "config.json").read_bytes()


def test_a_stack_is_the_model_put_together_by_hand(
    base: Path, adapter: TermOf, checkpoint: TermOf, tmp_path: Path
) -> None:
    slices = [(None, 0, 3), (0, 1, 4), (1, 2, 4)]
    merging.build(tmp_path / "folded", base, [adapter])

    stack(tmp_path / "out", base, [adapter, checkpoint], slices)

    folders = (base, tmp_path / "folded", checkpoint.folder)
    parts = [
        (merging.raw_tensors(folder), first, last)
        for folder, (_, first, last) in zip(folders, slices, strict=True)
    ]
    assert merging.raw_tensors(tmp_path / "out") == by_hand(parts)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == json.loads((base / "config.json").read_text()) | {"num_hidden_layers": 8}


def test_embeddings_come_from_the_first_slice_and_the_head_from_the_last(
    base: Path, checkpoint: TermOf, tmp_path: Path
) -> None:
    stack(tmp_path / "a", base, [checkpoint], [(0, 0, 2), (None, 2, 4)])
    stack(tmp_path / "b", base, [checkpoint], [(None, 0, 2), (0, 2, 4)])

    before, tuned = merging.raw_tensors(base), merging.raw_tensors(checkpoint.folder)
    first, second = merging.raw_tensors(tmp_path / "a"), merging.raw_tensors(tmp_path / "b")
    embedding = "model.embed_tokens.weight"
    assert (first[embedding], second[embedding]) == (tuned[embedding], before[embedding])
    for name in ("model.norm.weight", "lm_head.weight"):
        assert (first[name], second[name]) == (before[name], tuned[name])


def test_an_adapter_of_the_embeddings_changes_them_only_in_the_first_slice(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", tied=False)
    folder = tiny.tiny_adapter(tmp_path / "adapter", base=base, seed=1, targets=("embed_tokens",))
    term = TermOf(folder)
    merging.build(tmp_path / "folded", base, [term])

    stack(tmp_path / "first", base, [term], [(0, 0, 1), (None, 1, 2)])
    stack(tmp_path / "last", base, [term], [(None, 0, 1), (0, 1, 2)])

    assert merging.raw_tensors(tmp_path / "first") == merging.raw_tensors(tmp_path / "folded")
    assert merging.raw_tensors(tmp_path / "last") == merging.raw_tensors(base)


def test_a_stack_opens_in_transformers_and_generates(
    base: Path, adapter: TermOf, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stack(tmp_path / "out", base, [adapter], [(None, 0, 3), (0, 1, 4)])

    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")("the", return_tensors="pt")
    made = model.generate(**tokens, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert made.shape == (1, tokens["input_ids"].shape[1] + 3)
    assert len(model.model.layers) == 6


def test_a_stack_may_be_stacked_again(base: Path, tmp_path: Path) -> None:
    stack(tmp_path / "inner", base, [], [(None, 0, 4), (None, 0, 4)])
    inner = TermOf(tmp_path / "inner", kind="merge")

    stack(tmp_path / "outer", base, [inner], [(None, 0, 1), (0, 3, 8)])

    before = merging.raw_tensors(base)
    parts = [(before, 0, 1), (before, 3, 4), (before, 0, 4)]
    assert merging.raw_tensors(tmp_path / "outer") == by_hand(parts)


def test_gpt2_is_stacked_by_its_own_names(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=40, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    before = merging.raw_tensors(tmp_path / "base")

    stack(tmp_path / "out", tmp_path / "base", [], [(None, 0, 2), (None, 1, 2)])

    found = merging.raw_tensors(tmp_path / "out")
    assert found.items() >= before.items()
    extra = {name: tensor for name, tensor in found.items() if name not in before}
    assert extra == {
        name.replace(".h.1.", ".h.2."): tensor for name, tensor in before.items() if ".h.1." in name
    }
    assert json.loads((tmp_path / "out/config.json").read_text())["n_layer"] == 3
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]


def test_lists_per_layer_follow_the_layers(base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base, tmp_path / "base")
    config = json.loads((copy / "config.json").read_text())
    types = ["full", "sliding", "full", "full"]
    more = {"layer_types": types, "eos_token_id": [2, 3, 4, 5], "mlp_only_layers": []}
    tiny.write_json(copy / "config.json", config | more)

    stack(tmp_path / "out", copy, [], [(None, 0, 2), (None, 1, 3)])

    found = json.loads((tmp_path / "out/config.json").read_text())
    assert found["layer_types"] == ["full", "sliding", "sliding", "full"]
    assert found["eos_token_id"] == [2, 3, 4, 5]


def test_an_output_dtype_is_cast_once_and_threads_change_no_bit(
    base: Path, adapter: TermOf, tmp_path: Path
) -> None:
    slices = [(None, 0, 2), (0, 1, 4)]
    one = stack(tmp_path / "a", base, [adapter], slices, dtype="float32", threads=1)
    two = stack(tmp_path / "b", base, [adapter], slices, dtype="float32", threads=3)

    assert one.artifact_digest == two.artifact_digest
    assert {entry[0] for entry in merging.raw_tensors(tmp_path / "a").values()} == {"F32"}
    name = "model.layers.1.mlp.up_proj.weight"
    assert (tiny.read_tensors(tmp_path / "a")[name] == tiny.read_tensors(base)[name]).all()


def test_the_card_names_the_slices(base: Path, adapter: TermOf, tmp_path: Path) -> None:
    stack(tmp_path / "out", base, [adapter], [(None, 0, 2), (0, 1, 4)])

    text = (tmp_path / "out/README.md").read_text()
    assert "# passthrough(tiny[0:2], adapter@1[1:4])" in text
    assert "| slice 1 | layers [1, 4] of `adapter@1` |" in text
    assert "Layers stacked to a model of 5; base model `tiny`." in text
    assert "but for the number of layers" in text


# --- what is refused -------------------------------------------------------------------------


def refused(output: Path, base: Path, terms: list[TermOf], slices: list[Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        stack(output, base, terms, slices)
    assert not output.exists() or not list(output.iterdir())
    return caught.value


@pytest.mark.parametrize(
    ("slices", "words"),
    [
        ([], "recipe.slices: expected slices exactly where the method stacks them"),
        ([(None, 0, 5)], "recipe.slices: expected layers within [0, 4), found [0, 5]"),
        (
            [(None, 2, 2)],
            "recipe.slices[0].layers: expected [first, last) with first < last, found [2, 2]",
        ),
        (
            [(None, -1, 2)],
            "recipe.slices[0].layers: expected [first, last) with first < last, found [-1, 2]",
        ),
        ([(None, 0, 2)], "recipe.slices: expected every term in a slice, found 0 of 1"),
        (
            [(None, 0, 2), (1, 0, 2)],
            "recipe.slices[1].term: expected null or a term, in the order of first use, found 1",
        ),
    ],
)
def test_slices_that_make_no_sense_are_refused(
    base: Path, adapter: TermOf, tmp_path: Path, slices: list[Any], words: str
) -> None:
    if slices == [(None, 0, 5)]:
        assert str(refused(tmp_path / "out", base, [], slices)) == words
    else:
        assert str(refused(tmp_path / "out", base, [adapter], slices)) == words


def test_slices_of_another_method_and_a_union_of_a_stack_are_refused(
    base: Path, adapter: TermOf
) -> None:
    plain = merging.request_of(base, [adapter])
    plain["recipe"]["slices"] = [{"term": 0, "layers": [0, 2]}]
    union = stack_request(base, [adapter], [(0, 0, 2)])
    union["recipe"]["tokenizer"] = "union"

    for data, words in (
        (plain, "recipe.slices: expected slices exactly where the method stacks them"),
        (union, "recipe.tokenizer: passthrough keeps the base's tokenizer"),
    ):
        with pytest.raises(InputError) as caught:
            merging.request.parse(data)
        assert str(caught.value) == words


def test_an_adapter_of_a_stack_or_a_union_is_refused(base: Path, adapter: TermOf) -> None:
    tall = stack_request(base, [adapter], [(0, 0, 2)])
    united = merging.request_of(base, [adapter])
    united["recipe"]["tokenizer"] = "union"

    for data in (tall, united):
        data["output"] = {"form": "adapter", "dtype": "float32", "rank": 4}
        with pytest.raises(InputError) as caught:
            merging.request.parse(data)
        assert str(caught.value) == (
            "output.form: an adapter has the base's layers and tokens: no stack, no union"
        )


def test_a_weight_is_refused(base: Path, adapter: TermOf, tmp_path: Path) -> None:
    error = refused(tmp_path / "out", base, [TermOf(adapter.folder, 0.5)], [(0, 0, 2)])

    assert error.why == "this method takes no weights"


def test_rows_of_another_number_are_not_copied(
    base: Path, checkpoint: TermOf, tmp_path: Path
) -> None:
    padded = retokenized(tmp_path / "padded", checkpoint.folder, rows=280)
    other = retokenized(tmp_path / "other", checkpoint.folder, added=("<a>",))

    rows = refused(tmp_path / "a", base, [TermOf(padded, kind="checkpoint")], [(0, 0, 4)])
    tokens = refused(tmp_path / "b", base, [TermOf(other, kind="checkpoint")], [(0, 0, 4)])

    assert str(rows) == (
        "checkpoint padded@1: passthrough copies rows: expected as many rows of padding as in the "
        "base"
    )
    assert str(tokens) == (
        'checkpoint other@1: expected the base\'s vocabulary: only in checkpoint other@1: "<a>" (266)'
    )


def test_layers_unlike_those_of_the_base_are_refused(base: Path, tmp_path: Path) -> None:
    other = tiny.tiny_base(tmp_path / "wide", layers=4, hidden=32, tied=False)
    odd = shutil.copytree(base, tmp_path / "odd")
    tensors = tiny.read_safetensors(odd / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    tiny.write_raw(odd / "model.safetensors", tensors)

    wide = refused(tmp_path / "a", base, [TermOf(other, kind="checkpoint")], [(0, 0, 2)])
    less = refused(tmp_path / "b", base, [TermOf(odd, kind="checkpoint")], [(0, 0, 2)])

    assert str(wide) == (
        "checkpoint wide@1: lm_head.weight: expected the base's shape [272, 16], found shape "
        "[272, 32]"
    )
    assert str(less) == (
        "checkpoint odd@1: layer 2 has other tensors or shapes than the layers of the base"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"num_hidden_layers": 5},
            "config.json: expected one of num_hidden_layers, n_layer, n_layers, num_layers, "
            "num_decoder_layers to be 4, found none",
        ),
        (
            {"mlp_only_layers": [1, 3]},
            "config.json: mlp_only_layers names layers in a way that cannot be restacked",
        ),
    ],
)
def test_a_config_that_cannot_be_restacked_is_refused(
    base: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    copy = shutil.copytree(base, tmp_path / "base")
    config = json.loads((copy / "config.json").read_text())
    tiny.write_json(copy / "config.json", config | change)

    error = refused(tmp_path / "out", copy, [], [(None, 0, 2)])

    assert (error.field, error.why) == ("recipe.slices", words)


def test_layers_of_two_kinds_are_refused(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    path = base / "model.safetensors"
    tensors = tiny.read_safetensors(path)
    tower = ("BF16", (2,), bytes(4))
    tiny.write_raw(path, tensors | {"vision.layers.0.norm.weight": tower})

    error = refused(tmp_path / "out", base, [], [(None, 0, 1)])

    assert error.why == ("expected layers under one name, found model.layers. and vision.layers.")


def test_a_non_finite_value_is_told_with_its_owner(
    base: Path, checkpoint: TermOf, tmp_path: Path
) -> None:
    bad = shutil.copytree(checkpoint.folder, tmp_path / "bad")
    tensors = tiny.read_safetensors(bad / "model.safetensors")
    name = "model.layers.3.mlp.up_proj.weight"
    dtype, shape, data = tensors[name]
    tiny.write_raw(
        bad / "model.safetensors", tensors | {name: (dtype, shape, b"\x80\x7f" + data[2:])}
    )

    error = refused(tmp_path / "out", base, [TermOf(bad, kind="checkpoint")], [(0, 2, 4)])

    assert (error.tensor, error.term) == ("model.layers.1.mlp.up_proj.weight", "checkpoint bad@1")


def test_passthrough_stands_in_the_schema_without_weights_or_seed() -> None:
    facts = schemas.methods()["passthrough"]

    assert (facts["x-weights"], facts["x-symmetric"], facts["x-seed"]) == (False, False, False)
    assert facts["properties"] == {}
