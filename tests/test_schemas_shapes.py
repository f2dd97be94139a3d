"""Rules of vocabularies and stacks that both programs share, from names, shapes and configs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas import stack, vocabulary
from schemas.stack import Slice, StackError
from schemas.vocabulary import VocabularyError

LLAMA = {
    "model.embed_tokens.weight": (32, 8),
    "model.layers.0.mlp.up_proj.weight": (32, 8),
    "model.norm.weight": (8,),
    "lm_head.weight": (32, 8),
}
GPT2 = {
    "transformer.wte.weight": (32, 8),
    "transformer.wpe.weight": (16, 8),
    "transformer.h.0.attn.c_attn.weight": (8, 24),
}
NEOX = {"gpt_neox.embed_in.weight": (32, 8), "embed_out.weight": (32, 8)}
PHI = LLAMA | {"lm_head.bias": (32,)}


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        (LLAMA, {"model.embed_tokens.weight", "lm_head.weight"}),
        (GPT2, {"transformer.wte.weight"}),
        (NEOX, {"gpt_neox.embed_in.weight", "embed_out.weight"}),
        (PHI, {"model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"}),
    ],
)
def test_tensors_of_the_vocabulary_are_told_by_place_and_rows(
    shapes: dict[str, tuple[int, ...]], names: set[str]
) -> None:
    for config in ({"vocab_size": 32}, {"text_config": {"vocab_size": 32}}):
        found = vocabulary.vocabulary_tensors(shapes, config)
        assert (found.names, found.rows) == (frozenset(names), 32)


@pytest.mark.parametrize(
    ("shapes", "config", "tensor", "words"),
    [
        (LLAMA, {}, "", "config.json: expected vocab_size, found none"),
        (LLAMA, {"vocab_size": True}, "", "config.json: expected vocab_size, found none"),
        (LLAMA, {"vocab_size": 7}, "", "expected embeddings of vocab_size 7 rows, found none"),
        (
            GPT2 | {"transformer.wpe.weight": (32, 8)},
            {"vocab_size": 32},
            "transformer.wte.weight",
            "has a dimension of vocab_size 32 beside transformer.wpe.weight, "
            "transformer.wte.weight: cannot tell which is the vocabulary",
        ),
        (
            LLAMA | {"score.weight": (32, 8)},
            {"vocab_size": 32},
            "score.weight",
            "has a dimension of vocab_size 32 beside lm_head.weight, model.embed_tokens.weight, "
            "score.weight: cannot tell which is the vocabulary",
        ),
        (
            LLAMA | {"final_logits": (1, 32)},
            {"vocab_size": 32},
            "final_logits",
            "has a dimension of vocab_size 32 beside lm_head.weight, model.embed_tokens.weight: "
            "cannot tell which is the vocabulary",
        ),
    ],
)
def test_what_leaves_a_doubt_is_refused_by_name(
    shapes: dict[str, tuple[int, ...]], config: dict[str, Any], tensor: str, words: str
) -> None:
    with pytest.raises(VocabularyError) as caught:
        vocabulary.vocabulary_tensors(shapes, config)

    assert (caught.value.tensor, caught.value.why) == (tensor, words)


def test_the_number_of_rows_is_changed_where_it_stands() -> None:
    inner = {"vocab_size": 32, "hidden_size": 8}

    assert vocabulary.with_rows({"vocab_size": 32}, 40) == {"vocab_size": 40}
    assert vocabulary.with_rows({"text_config": inner}, 40) == {
        "text_config": {"vocab_size": 40, "hidden_size": 8}
    }


def test_a_plain_vocabulary_file_is_read_too(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "vocab.json").write_text('{"a": 0, "b": 1}')
    (one / "tokenizer.json").write_text("{}")

    assert vocabulary.shared_file(one, two) == "vocab.json"
    assert vocabulary.read_tokens(one, "vocab.json") == {"a": 0, "b": 1}
    assert vocabulary.shared_file(one, tmp_path) is None


NAMES = ["wte.weight", "h.0.a", "h.0.b", "h.1.a", "h.1.b", "ln_f.weight"]


def test_layers_are_renumbered_and_the_rest_comes_from_the_ends() -> None:
    slices = (Slice(None, 1, 2), Slice(0, 0, 2))

    found = stack.stacked({None: NAMES, 0: NAMES}, slices)

    assert {name: (one.term, one.name) for name, one in found.items()} == {
        "h.0.a": (None, "h.1.a"),
        "h.0.b": (None, "h.1.b"),
        "h.1.a": (0, "h.0.a"),
        "h.1.b": (0, "h.0.b"),
        "h.2.a": (0, "h.1.a"),
        "h.2.b": (0, "h.1.b"),
        "ln_f.weight": (0, "ln_f.weight"),
        "wte.weight": (None, "wte.weight"),
    }
    assert stack.height(slices) == 3


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["wte.weight"], "expected layers under one name, found none"),
        (["h.0.a", "h.2.a"], "expected layers without holes under h."),
        (
            ["encoder.layers.0.a", "decoder.layers.0.a"],
            "expected layers under one name, found decoder.layers. and encoder.layers.",
        ),
    ],
)
def test_models_without_one_row_of_layers_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(StackError) as caught:
        stack.layers_of(names)

    assert caught.value.why == words


def test_a_config_counts_and_lists_the_layers_of_the_stack() -> None:
    base = {"n_layer": 2, "num_layers": 5, "kinds": ["a", "b"], "architectures": ["X", "Y"]}
    tall = {"n_layer": 3, "kinds": ["c", "d", "e"]}
    slices = (Slice(None, 0, 2), Slice(0, 2, 3))

    found = stack.stacked_config({None: base, 0: tall}, 2, slices)

    assert found == {"n_layer": 3, "kinds": ["a", "b", "e"]}
    with pytest.raises(StackError, match="expected an entry of kinds for layer 2, found none"):
        stack.stacked_config({None: base, 0: {"n_layer": 3}}, 2, slices)
