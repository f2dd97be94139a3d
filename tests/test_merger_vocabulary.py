"""Vocabularies: named where they differ, padding understood, unions against extended bases by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merger import blocks, vocabulary_views
from merger.adapter_deltas import ProductDelta
from merger.blocks import Block
from merger.errors import InputError
from merger.vocabulary import Vocabulary
from tests import merging, tiny
from tests.merging import TermOf

EMBED = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
TOKENS = 266  # of the tiny tokenizer; the tiny models have 272 rows, six of them padding
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def retokenized(
    folder: Path,
    source: Path,
    *,
    added: Sequence[str] = (),
    pieces: Sequence[str] = (),
    swap: tuple[str, str] | None = None,
    rows: int | None = None,
) -> Path:
    """Copy a model; append pieces and added tokens, let two tokens change places, set the rows.

    New rows, padding included, are ramps of their own.
    """
    copy = shutil.copytree(source, folder)
    data = json.loads((copy / "tokenizer.json").read_text())
    vocab = data["model"]["vocab"]
    vocab |= {piece: TOKENS + number for number, piece in enumerate(pieces)}
    if swap:
        vocab[swap[0]], vocab[swap[1]] = vocab[swap[1]], vocab[swap[0]]
    start = TOKENS + len(pieces)
    data["added_tokens"] += [
        {"id": start + number, "content": token, "special": True, **FLAGS}
        for number, token in enumerate(added)
    ]
    tiny.write_json(copy / "tokenizer.json", data)
    arrays = tiny.read_tensors(source)
    for name in (EMBED, HEAD):
        if name in arrays:
            arrays[name] = _rows(arrays[name], rows or len(arrays[name]))
    tiny.write_safetensors(copy / "model.safetensors", arrays, dtype="bfloat16")
    config = json.loads((copy / "config.json").read_text())
    tiny.write_json(copy / "config.json", config | {"vocab_size": len(arrays[EMBED])})
    return copy


def _rows(array: tiny.Array, rows: int) -> tiny.Array:
    grown = np.zeros((rows, array.shape[1]), np.float32)
    grown[: min(rows, len(array))] = array[:rows]
    for row in range(TOKENS, rows):
        grown[row] += np.arange(array.shape[1], dtype=np.float32) / 64 + row / 16
    return grown


def as_bfloat16(array: tiny.Array) -> tiny.Array:
    return tiny._decode("BF16", tiny._encode("bfloat16", array)).reshape(array.shape)


def union(base: Path, terms: Sequence[TermOf], method: str = "task_arithmetic", **o: Any) -> Any:
    data = merging.request_of(base, terms, method, **o)
    data["recipe"]["tokenizer"] = "union"
    return data


def build_union(
    output: Path, base: Path, terms: Sequence[TermOf], *, threads: int = 2, **options: Any
) -> merging.engine.Built:
    data = union(base, terms, **options)
    return merging.build_request(output, data, merging.inputs_of(base, terms), threads=threads)


def refused(output: Path, data: Mapping[str, Any], inputs: Mapping[str, Path]) -> InputError:
    with pytest.raises(InputError) as caught:
        merging.build_request(output, data, inputs)
    assert not output.exists() or not list(output.iterdir())
    return caught.value


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("world") / "base", seed=7, tied=False)


@pytest.fixture(scope="module")
def tuned(base: Path) -> Path:
    return tiny.tiny_checkpoint(base.parent / "tuned", base=base, seed=1)


@pytest.fixture(scope="module")
def adapter(base: Path) -> TermOf:
    targets = ("q_proj", "lm_head")
    return TermOf(tiny.tiny_adapter(base.parent / "adapter", base=base, seed=3, targets=targets))


# --- one vocabulary --------------------------------------------------------------------------


def test_differing_tokens_are_named(base: Path, tuned: Path, tmp_path: Path) -> None:
    other = retokenized(
        tmp_path / "other", tuned, added=("<a>", "<b>", "<c>", "<d>"), swap=("Ġthe", "on")
    )
    term = TermOf(other, kind="checkpoint")

    error = refused(
        tmp_path / "out", merging.request_of(base, [term]), merging.inputs_of(base, [term])
    )

    assert str(error) == (
        'checkpoint other@1: expected the base\'s vocabulary: token "Ġthe" is 264 here and 265 in '
        'the base; token "on" is 265 here and 264 in the base; only in checkpoint other@1: '
        '"<a>" (266), "<b>" (267), "<c>" (268) and 1 more'
    )


def test_tokens_that_only_the_base_has_are_named(base: Path, tuned: Path, tmp_path: Path) -> None:
    larger = retokenized(tmp_path / "larger", base, added=("<a>",))
    term = TermOf(tuned, kind="checkpoint")

    error = refused(
        tmp_path / "out", merging.request_of(larger, [term]), merging.inputs_of(larger, [term])
    )

    assert error.why == 'expected the base\'s vocabulary: only in the base: "<a>" (266)'


@pytest.mark.parametrize("rows", [266, 268, 288])
def test_padding_of_another_height_is_no_other_vocabulary(
    base: Path, tuned: Path, tmp_path: Path, rows: int
) -> None:
    padded = retokenized(tmp_path / "padded", tuned, rows=rows)
    by_hand = shutil.copytree(tuned, tmp_path / "hand")
    arrays, before = tiny.read_tensors(tuned), tiny.read_tensors(base)
    for name in (EMBED, HEAD):
        arrays[name][TOKENS:] = before[name][TOKENS:]
    tiny.write_safetensors(by_hand / "model.safetensors", arrays, dtype="bfloat16")

    merging.build(tmp_path / "a", base, [TermOf(padded, 0.5, "checkpoint")], method="ties")
    merging.build(tmp_path / "b", base, [TermOf(by_hand, 0.5, "checkpoint")], method="ties")

    assert merging.raw_tensors(tmp_path / "a") == merging.raw_tensors(tmp_path / "b")
    kept = tiny.read_tensors(tmp_path / "a")[EMBED][TOKENS:]
    np.testing.assert_array_equal(kept, before[EMBED][TOKENS:])
    assert (tmp_path / "a/config.json").read_bytes() == (base / "config.json").read_bytes()


def test_rows_of_equal_number_correspond_padding_too(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    merging.build(tmp_path / "out", base, [TermOf(tuned, 1.0, "checkpoint")], dtype="float32")

    found, expected = tiny.read_tensors(tmp_path / "out"), tiny.read_tensors(tuned)
    np.testing.assert_array_equal(found[EMBED], expected[EMBED])


def test_other_rows_without_a_tokenizer_are_refused(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    padded = retokenized(tmp_path / "padded", tuned, rows=288)
    (padded / "tokenizer.json").unlink()
    term = TermOf(padded, kind="checkpoint")

    error = refused(
        tmp_path / "out", merging.request_of(base, [term]), merging.inputs_of(base, [term])
    )

    assert error.why == (
        "expected the base's vocabulary of 272 rows, found 288, and no tokenizer that tells "
        "padding from tokens"
    )


def test_a_config_that_contradicts_the_matrix_is_refused(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tuned, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    tiny.write_json(copy / "config.json", config | {"vocab_size": 300})
    term = TermOf(copy, kind="checkpoint")

    error = refused(
        tmp_path / "out", merging.request_of(base, [term]), merging.inputs_of(base, [term])
    )

    assert (error.tensor, error.why) == (
        HEAD,
        "config.json states a vocabulary of 300 rows, found 272",
    )


def test_a_tensor_that_may_or_may_not_be_the_vocabulary_is_refused_by_name(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    terms = []
    for source, name in ((base, "odd"), (tuned, "odd-tuned")):
        copy = shutil.copytree(source, tmp_path / name)
        tensors = tiny.read_safetensors(copy / "model.safetensors")
        positions = ("BF16", (272, 16), bytes(272 * 32))
        tensors["model.position_embeddings.weight"] = positions
        tiny.write_raw(copy / "model.safetensors", tensors)
        terms.append(copy)
    padded = shutil.copytree(terms[1], tmp_path / "padded")
    config = json.loads((padded / "config.json").read_text())
    tiny.write_json(padded / "config.json", config | {"vocab_size": 288})
    term = TermOf(padded, kind="checkpoint")

    error = refused(
        tmp_path / "out", merging.request_of(terms[0], [term]), merging.inputs_of(terms[0], [term])
    )

    assert error.tensor == "model.position_embeddings.weight"
    assert error.why.endswith("cannot tell which is the vocabulary")


# --- union -----------------------------------------------------------------------------------


def test_a_union_of_equal_vocabularies_is_the_plain_merge(
    base: Path, tuned: Path, adapter: TermOf, tmp_path: Path
) -> None:
    terms = [adapter, TermOf(tuned, 0.5, "checkpoint")]

    merging.build(tmp_path / "a", base, terms)
    build_union(tmp_path / "b", base, terms)

    assert merging.raw_tensors(tmp_path / "a") == merging.raw_tensors(tmp_path / "b")
    for file in ("config.json", "tokenizer.json"):
        assert (tmp_path / "b" / file).read_bytes() == (base / file).read_bytes()


METHODS: dict[str, dict[str, Any]] = {
    "task_arithmetic": {},
    "ties": {"method": "ties", "density": 0.4},
    "ties over the model": {"method": "ties", "density": 0.4, "scope": "model"},
    "linear": {"method": "linear"},
    "float64": {"compute": "float64"},
    "knots": {"method": "knots"},
}


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_a_union_is_the_merge_onto_a_base_extended_by_hand(
    base: Path,
    tuned: Path,
    adapter: TermOf,
    tmp_path: Path,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Small blocks, so that the boundary of old and new rows lies inside some of them.
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 64)
    # One token more than there is padding, in two orders; the second has another id for "on".
    first = ("<a>", "<b>", "<c>", "<d>", "<e>")
    one = retokenized(tmp_path / "one", tuned, added=first, rows=280)
    second = tiny.tiny_checkpoint(tmp_path / "second", base=base, seed=2)
    two = retokenized(
        tmp_path / "two", second, added=("<x>", "<y>", "<a>"), swap=("on", "an"), rows=272
    )
    names = sorted([one, two], key=merging.digest_of)  # the order of a symmetric request
    order = [*first, "<x>", "<y>"] if names[0] == one else ["<x>", "<y>", "<a>", *first[1:]]
    wide = _extended_by_hand(tmp_path, base, {one: first, two: ("<x>", "<y>", "<a>")}, order)
    hand = [
        TermOf(wide["adapter"], 0.75),
        TermOf(wide[one.name], 1.0, "checkpoint", "one"),
        TermOf(wide[two.name], 0.5, "checkpoint", "two"),
    ]
    terms = [
        TermOf(adapter.folder, 0.75),
        TermOf(one, 1.0, "checkpoint"),
        TermOf(two, 0.5, "checkpoint"),
    ]

    build_union(tmp_path / "a", base, terms, **options)
    merging.build(tmp_path / "b", wide["base"], hand, **options)

    found, expected = (tiny.read_tensors(tmp_path / name) for name in "ab")
    assert found.keys() == expected.keys()
    for name in expected:
        # The digests of terms sort them otherwise here, so sums may round otherwise.
        np.testing.assert_allclose(found[name], expected[name], rtol=2**-7, atol=2**-9)
    assert found[EMBED].shape == (273, 16)
    assert json.loads((tmp_path / "a/config.json").read_text())["vocab_size"] == 273


def _extended_by_hand(
    folder: Path, base: Path, owned: Mapping[Path, Sequence[str]], order: Sequence[str]
) -> dict[str, Path]:
    """Write base, operands and adapter with the union's rows, each row by the stated rule."""
    before = tiny.read_tensors(base)
    operands = {path: tiny.read_tensors(path) for path in owned}
    vocab = json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
    wide: dict[str, dict[str, tiny.Array]] = {"base": dict(before)}
    wide |= {path.name: dict(arrays) for path, arrays in operands.items()}
    for name in (EMBED, HEAD):
        start = np.zeros((TOKENS + len(order), before[name].shape[1]), np.float32)
        start[:272] = before[name]
        for number, token in enumerate(order):
            rows = [
                operands[path][name][TOKENS + tokens.index(token)]
                for path, tokens in owned.items()
                if token in tokens
            ]
            start[TOKENS + number] = as_bfloat16(np.mean(rows, axis=0, dtype=np.float32))
        wide["base"][name] = start
        for path, tokens in owned.items():
            mine = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
            rows = start.copy()
            for token, number in vocab.items():
                rows[number] = operands[path][name][mine[token]]
            for token in tokens:
                place = TOKENS + order.index(token)
                rows[place] = operands[path][name][TOKENS + tokens.index(token)]
            wide[path.name][name] = rows
    folders: dict[str, Path] = {}
    for key, arrays in wide.items():
        folders[key] = folder / "wide" / key
        folders[key].mkdir(parents=True)
        tiny.write_json(folders[key] / "config.json", {"vocab_size": TOKENS + len(order)})
        tiny.write_safetensors(folders[key] / "model.safetensors", arrays, dtype="bfloat16")
    folders["adapter"] = _widened_adapter(folder / "wide/adapter", base, TOKENS + len(order))
    return folders


def _widened_adapter(folder: Path, base: Path, rows: int) -> Path:
    copy = shutil.copytree(base.parent / "adapter", folder)
    arrays = tiny.read_tensors(copy)
    name = "base_model.model.lm_head.lora_B.weight"
    left = np.zeros((rows, arrays[name].shape[1]), np.float32)
    left[:TOKENS] = arrays[name][:TOKENS]
    tiny.write_safetensors(copy / "adapter_model.safetensors", arrays | {name: left})
    return copy


def test_a_row_of_one_owner_alone_is_that_row(base: Path, tuned: Path, tmp_path: Path) -> None:
    other = retokenized(tmp_path / "other", tuned, added=("<a>",))

    build_union(tmp_path / "out", base, [TermOf(other, 0.25, "checkpoint")])

    found, owner = tiny.read_tensors(tmp_path / "out"), tiny.read_tensors(other)
    for name in (EMBED, HEAD):
        np.testing.assert_array_equal(found[name][TOKENS], owner[name][TOKENS])
        np.testing.assert_array_equal(
            found[name][TOKENS + 1 :], tiny.read_tensors(base)[name][TOKENS + 1 :]
        )


def test_a_value_that_is_no_number_in_an_added_row_is_that_of_the_term(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    sound = retokenized(tmp_path / "sound", tuned, added=["<|one|>"], rows=280)
    broken = retokenized(tmp_path / "broken", tuned, added=["<|one|>", "<|two|>"], rows=280)
    arrays = tiny.read_tensors(broken)
    arrays[HEAD][TOKENS + 1, 3] = np.inf
    tiny.write_safetensors(broken / "model.safetensors", arrays, dtype="float32")
    terms = [TermOf(folder, 1.0, "checkpoint") for folder in (sound, broken)]

    error = refused(tmp_path / "out", union(base, terms), merging.inputs_of(base, terms))

    assert (error.tensor, error.term) == (HEAD, "checkpoint broken@1")


def test_a_value_that_is_no_number_in_the_base_of_a_union_is_that_of_the_base(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(base, tmp_path / "broken")
    arrays = tiny.read_tensors(broken)
    arrays[HEAD][5, 3] = np.nan
    tiny.write_safetensors(broken / "model.safetensors", arrays, dtype="float32")
    folder = retokenized(tmp_path / "grown", tuned, added=["<|one|>"], rows=280)
    terms = [TermOf(folder, 1.0, "checkpoint")]

    error = refused(tmp_path / "out", union(broken, terms), merging.inputs_of(broken, terms))

    assert (error.tensor, error.term) == (HEAD, "base tiny")


def test_permuted_vocabularies_merge_row_by_row(base: Path, tuned: Path, tmp_path: Path) -> None:
    permuted = retokenized(tmp_path / "permuted", tuned, swap=("Ġthe", "on"))
    arrays = tiny.read_tensors(tuned)
    for name in (EMBED, HEAD):
        arrays[name][[264, 265]] = arrays[name][[265, 264]]
    tiny.write_safetensors(permuted / "model.safetensors", arrays, dtype="bfloat16")

    build_union(tmp_path / "a", base, [TermOf(permuted, 1.0, "checkpoint")])
    merging.build(tmp_path / "b", base, [TermOf(tuned, 1.0, "checkpoint")])

    found, expected = (tiny.read_tensors(tmp_path / name) for name in "ab")
    for name in expected:
        np.testing.assert_array_equal(found[name][:TOKENS], expected[name][:TOKENS])
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_a_tied_model_has_one_matrix_of_the_union(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    other = retokenized(
        tmp_path / "other", base, added=tuple(f"<{n}>" for n in range(10)), rows=280
    )

    build_union(tmp_path / "out", base, [TermOf(other, 1.0, "checkpoint")])

    found = tiny.read_tensors(tmp_path / "out")
    assert found[EMBED].shape == (276, 16)
    np.testing.assert_array_equal(found[EMBED][:276], tiny.read_tensors(other)[EMBED][:276])


def test_a_bias_of_the_output_has_a_row_per_token_too(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    folders = []
    for source, name, factor in ((base, "biased", 1), (tuned, "biased-tuned", 2)):
        copy = shutil.copytree(source, tmp_path / name)
        bias = np.arange(272, dtype=np.float32) * factor / 8
        arrays = tiny.read_tensors(source) | {"lm_head.bias": bias}
        tiny.write_safetensors(copy / "model.safetensors", arrays, dtype="float32")
        folders.append(copy)
    other = retokenized(
        tmp_path / "other", folders[1], added=tuple(f"<{n}>" for n in range(8)), rows=274
    )
    arrays = tiny.read_tensors(other) | {"lm_head.bias": np.arange(274, dtype=np.float32) / 4}
    tiny.write_safetensors(other / "model.safetensors", arrays, dtype="float32")

    build_union(tmp_path / "out", folders[0], [TermOf(other, 1.0, "checkpoint")])

    found = tiny.read_tensors(tmp_path / "out")
    assert found["lm_head.bias"].tolist() == [number / 4 for number in range(274)]
    assert found[HEAD].shape == (274, 16)


def test_threads_and_memory_change_no_bit_of_a_union(
    base: Path, tuned: Path, adapter: TermOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 48)
    other = retokenized(
        tmp_path / "other", tuned, added=tuple(f"<{n}>" for n in range(9)), rows=280
    )
    terms = [adapter, TermOf(other, 0.5, "checkpoint")]

    built = [
        build_union(tmp_path / str(threads), base, terms, threads=threads, method="ties")
        for threads in (1, 4)
    ]

    assert built[0].artifact_digest == built[1].artifact_digest


def test_a_union_opens_in_transformers_and_tokenises_old_and_new(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    one = retokenized(
        tmp_path / "one", tuned, pieces=("Ġcat",), added=("<|tool|>", "<|call|>"), rows=280
    )
    two = retokenized(tmp_path / "two", tuned, added=("<|call|>", "<|茶|>"))
    terms = [TermOf(one, 0.5, "checkpoint"), TermOf(two, 0.5, "checkpoint")]

    build_union(tmp_path / "out", base, terms)

    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "out"))
    for text in ("the thin man <|im_end|>", "concat, Katze: ümlaut\n", "a cat"):
        assert after(text)["input_ids"] == before(text)["input_ids"]
        assert after.decode(after(text)["input_ids"]) == text
    new = {one: ("Ġcat", "<|tool|>", "<|call|>"), two: ("<|call|>", "<|茶|>")}
    in_turn = sorted(new, key=merging.digest_of)  # as the terms of a symmetric method are sorted
    order = list(dict.fromkeys(token for folder in in_turn for token in new[folder]))
    assert [after.convert_tokens_to_ids(token) for token in order] == [266, 267, 268, 269]
    text = "the<|tool|><|茶|> the"
    tokens = after(text, return_tensors="pt")
    assert tokens["input_ids"][0].tolist() == [
        *before("the")["input_ids"],
        TOKENS + order.index("<|tool|>"),
        TOKENS + order.index("<|茶|>"),
        *before(" the")["input_ids"],
    ]
    assert after.decode(tokens["input_ids"][0]) == text
    assert after.decode(tokens["input_ids"][0], skip_special_tokens=True) == "the the"
    assert after.decode([TOKENS + order.index("Ġcat")]) == " cat"
    assert model(**tokens).logits.shape[-1] == model.config.vocab_size
    generation = "generation_config.json"
    assert (tmp_path / "out" / generation).read_bytes() == (base / generation).read_bytes()


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "GPT2Tokenizer", "Qwen2Tokenizer"])
def test_every_class_of_tokenizer_knows_the_new_tokens(
    tuned: Path, base: Path, tmp_path: Path, kind: str, *, listed: bool
) -> None:
    from transformers import AutoTokenizer

    copy = shutil.copytree(base, tmp_path / "base")
    settings = json.loads((copy / "tokenizer_config.json").read_text()) | {"tokenizer_class": kind}
    old = {str(n): {"content": t, "special": True, **FLAGS} for n, t in enumerate(tiny._SPECIAL)}
    settings |= {"added_tokens_decoder": old} if listed else {}
    tiny.write_json(copy / "tokenizer_config.json", settings)
    one = retokenized(tmp_path / "one", tuned, pieces=("Ġcat",), added=("<|tool|>",))

    build_union(tmp_path / "out", copy, [TermOf(one, 1.0, "checkpoint")])

    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokens("the<|tool|><|im_end|>")["input_ids"] == [260, 267, 2]
    assert tokens.convert_tokens_to_ids(["Ġcat", "<|tool|>"]) == [266, 267]
    written = (tmp_path / "out/tokenizer_config.json").read_bytes()
    assert (written == (copy / "tokenizer_config.json").read_bytes()) == (not listed)


def test_a_union_is_an_operand_of_the_next_union(base: Path, tuned: Path, tmp_path: Path) -> None:
    one = retokenized(tmp_path / "one", tuned, pieces=("Ġcat",), added=("<a>",))
    build_union(tmp_path / "inner", base, [TermOf(one, 1.0, "checkpoint")])
    terms = [TermOf(tmp_path / "inner", 0.5, "merge"), TermOf(one, 0.5, "checkpoint")]

    build_union(tmp_path / "outer", base, terms)

    first, second = (
        json.loads((tmp_path / n / "tokenizer.json").read_text()) for n in ("inner", "outer")
    )
    assert first == second
    assert tiny.read_tensors(tmp_path / "outer")[EMBED].shape == (272, 16)


def test_a_union_needs_tokenizers(base: Path, tuned: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(base, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    padded = retokenized(tmp_path / "padded", tuned, rows=288)
    (padded / "tokenizer.json").unlink()
    whole, short = TermOf(tuned, kind="checkpoint"), TermOf(padded, kind="checkpoint")

    of_base = refused(tmp_path / "a", union(bare, [whole]), merging.inputs_of(bare, [whole]))
    of_term = refused(tmp_path / "b", union(base, [short]), merging.inputs_of(base, [short]))

    assert str(of_base) == (
        "recipe.tokenizer: a union of vocabularies needs the base's tokenizer.json, found none"
    )
    assert of_term.why == "expected the base's 272 rows or a tokenizer, found 288 rows"


def test_pieces_in_another_spelling_are_refused(base: Path, tuned: Path, tmp_path: Path) -> None:
    other = retokenized(tmp_path / "other", tuned, added=("<a>",))
    data = json.loads((other / "tokenizer.json").read_text())
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    tiny.write_json(
        other / "tokenizer.json", data | dict.fromkeys(("pre_tokenizer", "decoder"), metaspace)
    )
    term = TermOf(other, kind="checkpoint")

    error = refused(tmp_path / "out", union(base, [term]), merging.inputs_of(base, [term]))

    assert error.why == "expected pieces in the base's spelling (byte-level), found metaspace"


def test_a_token_without_a_row_is_refused(base: Path, tuned: Path, tmp_path: Path) -> None:
    other = retokenized(tmp_path / "other", tuned, added=tuple(f"<{n}>" for n in range(10)))
    term = TermOf(other, kind="checkpoint")

    error = refused(tmp_path / "out", union(base, [term]), merging.inputs_of(base, [term]))

    assert str(error) == (
        "checkpoint other@1: expected a row for each of the 276 tokens, found 272 rows"
    )


def test_a_tokenizer_with_holes_keeps_all_its_ids(base: Path, tuned: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    holed = shutil.copytree(base, tmp_path / "holed")
    data = json.loads((holed / "tokenizer.json").read_text())
    data["model"]["vocab"]["last"] = 268
    tiny.write_json(holed / "tokenizer.json", data)
    other = retokenized(tmp_path / "other", tuned, added=("<a>",))

    build_union(tmp_path / "out", holed, [TermOf(other, 1.0, "checkpoint")])

    found = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert found.encode("the<a><|im_end|>").ids == [260, 269, 2]
    assert found.token_to_id("last") == 268
    rows = tiny.read_tensors(tmp_path / "out")[EMBED]
    np.testing.assert_array_equal(rows[269], tiny.read_tensors(other)[EMBED][266])
    np.testing.assert_array_equal(rows[268], tiny.read_tensors(base)[EMBED][268])


def scored(folder: Path, pieces: Sequence[str], added: Sequence[tuple[int, str]]) -> None:
    tokens = [{"id": number, "content": token, "special": True, **FLAGS} for number, token in added]
    model = {"type": "Unigram", "unk_id": 0, "vocab": [[piece, -1.0] for piece in pieces]}
    tiny.write_json(folder / "tokenizer.json", {"model": model, "added_tokens": tokens})


def test_a_scored_vocabulary_takes_added_tokens_and_no_pieces(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    copy = shutil.copytree(base, tmp_path / "base")
    good, bad = (shutil.copytree(tuned, tmp_path / name) for name in ("good", "bad"))
    scored(copy, ["<unk>", "a", "b"], [(3, "<s>")])
    scored(good, ["<unk>", "a", "b"], [(3, "<s>"), (4, "<t>")])
    scored(bad, ["<unk>", "a", "b", "ab"], [(4, "<s>")])
    term = TermOf(bad, kind="checkpoint")

    build_union(tmp_path / "out", copy, [TermOf(good, 1.0, "checkpoint")])
    error = refused(tmp_path / "no", union(copy, [term]), merging.inputs_of(copy, [term]))

    found = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert found.encode("ab<s>a<t>").ids == [1, 2, 3, 1, 4]
    assert str(error) == (
        "recipe.tokenizer: the base's tokenizer has no place for 'ab': its pieces are a scored list"
    )


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_file_of_a_tokenizer_that_is_none_is_refused(
    base: Path, tuned: Path, tmp_path: Path, file: str
) -> None:
    bad = shutil.copytree(base, tmp_path / "bad")
    (bad / file).write_text("[]")
    term = TermOf(retokenized(tmp_path / "other", tuned, added=("<a>",)), kind="checkpoint")

    error = refused(tmp_path / "out", union(bad, [term]), merging.inputs_of(bad, [term]))

    assert str(error) == f"base tiny: {file}: expected a JSON object"


def test_a_tokenizer_that_cannot_be_compared_is_refused(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    bad = shutil.copytree(tuned, tmp_path / "bad")
    (bad / "tokenizer.json").write_text('{"model": {}}')
    term = TermOf(bad, kind="checkpoint")

    error = refused(
        tmp_path / "out", merging.request_of(base, [term]), merging.inputs_of(base, [term])
    )

    assert error.why == "tokenizer.json: model: expected model.vocab and added_tokens"


def test_a_delta_of_an_adapter_is_zero_in_the_rows_of_added_tokens() -> None:
    left, right = torch.arange(1.0, 13.0).reshape(6, 2), torch.ones(2, 3)
    agreed = Vocabulary(frozenset({"e"}), 6, 9, range(4, 8), {})
    inner = ProductDelta(left, right)

    delta = vocabulary_views._WidenedDelta(inner, agreed)

    expected = torch.cat([(left @ right)[:4], torch.zeros(5, 3)])
    for first, last in ((0, 9), (0, 4), (3, 5), (5, 7), (6, 9), (8, 9)):
        found = delta.block(Block(first, last, 3)).reshape(-1, 3)
        assert found.tolist() == expected[first:last].tolist()
    wide, same = delta.factors()
    assert (wide @ same).tolist() == expected.tolist()


@pytest.mark.parametrize("value", ["base", "first", None, True])
def test_only_a_union_is_written_in_a_request(base: Path, adapter: TermOf, value: Any) -> None:
    data = merging.request_of(base, [adapter])
    data["recipe"]["tokenizer"] = value

    with pytest.raises(InputError) as caught:
        merging.request.parse(data)

    assert str(caught.value) == f"recipe.tokenizer: expected 'union', found {value!r}"
