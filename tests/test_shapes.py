"""Results with other tensors than the base's: declared, cross-checked, pinned, checked when built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry import preflight, shapes
from registry.catalog import load
from registry.errors import InvalidCatalog, VerificationFailed
from registry.index import Index
from registry.lineage import Known, ingredients
from registry.record import compare
from registry.request import Declaration, alone, declare, key_of
from registry.tree import WorkingTree
from schemas.expression import expression
from schemas.header import TensorInfo
from schemas.model import Located, ModelHeader
from tests import tiny
from tests.conftest import Repository

STACK = """\
  method: passthrough
  slices:
    - {layers: [0, 1]}
    - {adapter: formal, version: 1, layers: [0, 1]}
    - {adapter: formal, version: 1, layers: [1, 2]}
    - {merge: both-skills, layers: [1, 2]}
"""


def write_merge(repository: Repository, name: str, recipe: str, rest: str = "") -> None:
    text = f"kind: merge\nname: {name}\nbase: tiny-llama\nrecipe:\n{recipe}{rest}"
    (repository.root / f"catalog/merges/{name}.yaml").write_text(text)


def declared(repository: Repository, model: str) -> Declaration:
    catalog = load(WorkingTree(repository.root), Index(repository.root)).catalog
    return declare(catalog)[model]


def problems(repository: Repository) -> list[str]:
    """Return what `registry validate` says of catalog and weights."""
    index = Index(repository.root)
    try:
        loaded = load(WorkingTree(repository.root), index)
    except InvalidCatalog as error:
        return [problem.text() for problem in error.problems]
    return [one.text() for one in preflight.check(repository.root, loaded, index).problems]


def add_checkpoint(repository: Repository, name: str, *added: str) -> Path:
    """Add a fine-tune whose tokenizer has more tokens."""
    base = repository.root / "catalog/bases/tiny-llama/weights"
    scratch = tiny.tiny_checkpoint(repository.root.parent / name, base=base, seed=4)
    data = json.loads((scratch / "tokenizer.json").read_text())
    start = 1 + max(data["model"]["vocab"].values())
    start = max([start, *(1 + one["id"] for one in data["added_tokens"])])
    for number, token in enumerate(added):
        data["added_tokens"].append(
            data["added_tokens"][0] | {"id": start + number, "content": token}
        )
    tiny.write_json(scratch / "tokenizer.json", data)
    arrays = tiny.read_tensors(scratch)
    config = json.loads((scratch / "config.json").read_text())
    rows = max(start + len(added), config["vocab_size"])
    for key, array in arrays.items():
        if len(array) == config["vocab_size"]:
            grown = tiny._normal(tiny.np.random.default_rng(1), (rows, array.shape[1]), 0.1)
            grown[: len(array)] = array
            arrays[key] = grown
    for path in scratch.glob("*.safetensors*"):
        path.unlink()
    tiny.write_safetensors(scratch / "model.safetensors", arrays, dtype="bfloat16")
    tiny.write_json(scratch / "config.json", config | {"vocab_size": rows})
    ran = repository.run("add", "checkpoint", str(scratch), "--name", name, "--base", "tiny-llama")
    assert ran.code == 0, ran.err
    return scratch


def test_the_request_of_a_stack_is_canonical(repository: Repository) -> None:
    write_merge(repository, "tall", STACK)

    one = declared(repository, "tall")
    request = one.pin({"both-skills": "sha256:" + "0" * 64})

    recipe = request["recipe"]
    assert [term["input"]["name"] for term in recipe["terms"]] == ["formal", "both-skills"]
    assert [term["weight"] for term in recipe["terms"]] == [1.0, 1.0]
    assert recipe["slices"] == [
        {"term": None, "layers": [0, 1]},
        {"term": 0, "layers": [0, 2]},
        {"term": 1, "layers": [1, 2]},
    ]
    assert one.upstream == ("both-skills",)
    assert "tokenizer" not in recipe
    line = "passthrough(tiny-llama[0:1], formal@1[0:2], both-skills[1:2])"
    assert expression("tiny-llama", recipe) == line
    graph = ingredients("tall", Known({"tall": request}))
    assert [edge.part.label for edge in graph.edges] == [
        "base tiny-llama",
        "adapter formal@1",
        "merge both-skills",
    ]


def test_moved_layers_are_another_request_and_are_told(repository: Repository) -> None:
    write_merge(repository, "tall", STACK)
    before = declared(repository, "tall").request
    write_merge(repository, "tall", STACK.replace("{layers: [0, 1]}", "{layers: [0, 2]}"))
    after = declared(repository, "tall").request

    (difference,) = compare(before, after)

    assert difference.field == "recipe.slices[0]"
    assert (difference.old, difference.new) == ("base tiny-llama[0:1]", "base tiny-llama[0:2]")


def test_slices_that_came_or_went_are_told_by_name_once(repository: Repository) -> None:
    write_merge(repository, "tall", "  method: passthrough\n  slices: [{layers: [0, 2]}]\n")
    before = declared(repository, "tall").request
    slices = "[{layers: [0, 2]}, {adapter: formal, version: 1, layers: [1, 2]}]"
    write_merge(repository, "tall", f"  method: passthrough\n  slices: {slices}\n")
    after = declared(repository, "tall").request

    (difference,) = compare(before, after)

    assert difference.field == "recipe.slices"
    assert difference.old == "base tiny-llama[0:2]"
    assert difference.new == "base tiny-llama[0:2], adapter formal@1[1:2]"


def test_a_union_given_up_is_told_as_the_vocabulary_of_the_base(repository: Repository) -> None:
    base = declared(repository, "both-skills").request
    union = {**base, "recipe": {**base["recipe"], "tokenizer": "union"}}

    (difference,) = compare(union, base)

    assert (difference.old, difference.new) == ("union", "base")


def test_a_union_is_in_the_request_and_a_base_is_not(repository: Repository) -> None:
    plain = declared(repository, "both-skills").pin({})
    merge = "catalog/merges/both-skills.yaml"
    repository.edit(merge, "recipe:\n", "recipe:\n  tokenizer: base\n")
    base = declared(repository, "both-skills").pin({})
    repository.edit(merge, "tokenizer: base", "tokenizer: union")
    union = declared(repository, "both-skills").pin({})

    assert key_of(base) == key_of(plain)
    assert union["recipe"]["tokenizer"] == "union"
    assert alone(union, 0)["recipe"]["tokenizer"] == "union"
    assert "tokenizer" not in alone(plain, 0)["recipe"]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            "  method: passthrough\n  slices: [{layers: [1, 1]}]\n",
            "6:21: recipe.slices[0].layers: expected [first, last) with first < last, found "
            "[1, 1]\n  hint: layers [1, 2] are layer 1 alone",
        ),
        (
            "  method: passthrough\n  slices: [{layers: [0, 2]}, {layers: [1, 3]}]\n",
            "6:39: recipe.slices[1].layers: expected layers within [0, 2] of the base, found [1, 3]",
        ),
        (
            "  method: passthrough\n  slices: [{adapter: formal, version: 1, layers: [0, 9]}]\n",
            "6:50: recipe.slices[0].layers: expected layers within [0, 2] of adapter formal@1, "
            "found [0, 9]",
        ),
        (
            "  method: passthrough\n  slices: [{layers: [0, 1]}, {merge: nowhere, layers: [0, 1]}]\n",
            "6:38: recipe.slices[1].merge: no merge nowhere\n"
            "  hint: declare it in catalog/merges/ first",
        ),
        (
            "  method: passthrough\n  slices: [{layers: [0, 1]}, {merge: odd, layers: [0, 1]}]\n",
            "6:38: recipe.slices[1].merge: these merges are made of each other: odd -> odd",
        ),
    ],
)
def test_slices_are_cross_checked(repository: Repository, recipe: str, expected: str) -> None:
    write_merge(repository, "odd", recipe)

    assert problems(repository) == [f"catalog/merges/odd.yaml:{expected}"]


def test_a_stack_is_an_operand_of_stacks_only(repository: Repository) -> None:
    write_merge(
        repository,
        "tall",
        "  method: passthrough\n  slices: [{layers: [0, 2]}, {layers: [0, 2]}]\n",
    )
    write_merge(
        repository, "taller", "  method: passthrough\n  slices: [{merge: tall, layers: [1, 4]}]\n"
    )
    assert problems(repository) == []
    write_merge(repository, "sum", "  method: task_arithmetic\n  terms: [{merge: tall}]\n")
    write_merge(
        repository, "taller", "  method: passthrough\n  slices: [{merge: tall, layers: [1, 5]}]\n"
    )

    assert problems(repository) == [
        "catalog/merges/sum.yaml:6:19: recipe.terms[0].merge: merge tall has 4 layers and the base "
        "2\n  hint: only passthrough takes it, in slices",
        "catalog/merges/taller.yaml:6:34: recipe.slices[0].layers: expected layers within [0, 4] of "
        "merge tall, found [1, 5]",
    ]


def test_an_adapter_of_a_stack_or_a_union_is_told(repository: Repository) -> None:
    write_merge(repository, "tall", STACK, "output: {form: adapter, rank: 4}\n")
    terms = "  method: task_arithmetic\n  terms: [{adapter: formal, version: 1}]\n"
    write_merge(repository, "united", terms + "  tokenizer: union\n", "output: {form: adapter}\n")

    words = (
        "output.form: an adapter has the base's layers and tokens: no stack, no union\n"
        "  hint: build it as a model"
    )
    assert problems(repository) == [
        f"catalog/merges/tall.yaml:11:16: {words}",
        f"catalog/merges/united.yaml:8:16: {words}",
    ]


def test_another_vocabulary_is_told_where_it_is_not_united(repository: Repository) -> None:
    add_checkpoint(repository, "chat", "<|tool|>")
    assert problems(repository) == []  # nothing uses it yet

    terms = "  method: task_arithmetic\n  terms: [{checkpoint: chat, version: 1}]\n"
    write_merge(repository, "united", terms + "  tokenizer: union\n")
    assert problems(repository) == []

    above = "  method: task_arithmetic\n  terms: [{merge: united}]\n"
    write_merge(repository, "plain", above)
    assert problems(repository)[0].startswith(
        "catalog/merges/plain.yaml:6:19: recipe.terms[0].merge: expected the vocabulary of the base"
    )

    write_merge(repository, "plain", terms)
    slices = "  method: passthrough\n  slices: [{checkpoint: chat, version: 1, layers: [0, 2]}]\n"
    write_merge(repository, "tall", slices)
    plain, tall = problems(repository)
    words = 'expected the vocabulary of the base: only in checkpoint chat@1: "<|tool|>" ('
    assert plain.startswith(f"catalog/merges/plain.yaml:6:24: recipe.terms[0].checkpoint: {words}")
    assert plain.endswith("hint: write `tokenizer: union` in this recipe, or leave the term out")
    assert tall.startswith(f"catalog/merges/tall.yaml:6:25: recipe.slices[0].checkpoint: {words}")
    assert "hint: a stack has the base's tokens" in tall


def test_a_union_onto_a_base_of_unknown_vocabulary_is_told(repository: Repository) -> None:
    terms = "  method: task_arithmetic\n  terms: [{adapter: formal, version: 1}]\n"
    write_merge(repository, "united", terms + "  tokenizer: union\n")
    weights = repository.root / "catalog/bases/tiny-llama/weights"
    place = "catalog/merges/united.yaml:7:14: recipe.tokenizer: "

    config = json.loads((weights / "config.json").read_text())
    tiny.write_json(weights / "config.json", config | {"vocab_size": 7})
    by_config = problems(repository)
    (weights / "tokenizer.json").unlink()
    by_tokenizer = problems(repository)

    assert place + "expected embeddings of vocab_size 7 rows, found none" in by_config
    assert (
        place + "a union of vocabularies needs the base's tokenizer.json, found none"
        in by_tokenizer
    )


@pytest.mark.slow
def test_a_stack_and_a_union_are_synced_and_verified(repository: Repository) -> None:
    add_checkpoint(repository, "chat", "<|tool|>", "<|call|>")
    terms = "[{checkpoint: chat, version: 1, weight: 0.5}, {adapter: formal, version: 1}]"
    recipe = f"  method: ties\n  terms: {terms}\n  tokenizer: union\n"
    write_merge(repository, "united", recipe)
    write_merge(repository, "tall", STACK)
    repository.commit()

    ran = repository.run("sync", "united", "tall", "both-skills")

    assert ran.code == 0, ran.err
    assert "passthrough(tiny-llama[0:1], formal@1[0:2], both-skills[1:2])" in (
        repository.run("show", "tall").out
    )
    exported = repository.root.parent / "out"
    assert repository.run("export", "united", str(exported)).code == 0
    config = json.loads((exported / "config.json").read_text())
    base = repository.root / "catalog/bases/tiny-llama/weights/config.json"
    assert config["vocab_size"] == json.loads(base.read_text())["vocab_size"] + 2
    verified = repository.run("verify", "united", "tall", "--deep")
    assert verified.code == 0, verified.out
    assert "nothing to do" in repository.run("sync", "united", "tall").out


# --- what a worker hands back ----------------------------------------------------------------


def header(shapes_: dict[str, tuple[int, ...]], **config: Any) -> ModelHeader:
    info = {n: Located("f", TensorInfo("BF16", shape, 0, 0)) for n, shape in shapes_.items()}
    return ModelHeader(info, config)


BASE = header(
    {"embed.weight": (6, 4), "layers.0.w": (4, 4), "layers.1.w": (4, 4), "norm.weight": (4,)},
    vocab_size=6,
)


def built(changes: dict[str, tuple[int, ...] | None], **config: Any) -> ModelHeader:
    merged = {**BASE.shapes, **changes}
    return header({n: shape for n, shape in merged.items() if shape}, **{"vocab_size": 6, **config})


@pytest.mark.parametrize(
    ("found", "recipe", "words"),
    [
        (built({}), {}, ""),
        (built({"norm.weight": (5,)}), {}, "tensor norm.weight: expected (4,), found (5,)"),
        (built({"embed.weight": (8, 4)}, vocab_size=8), {"tokenizer": "union"}, ""),
        (
            built({"embed.weight": (8, 4)}, vocab_size=7),
            {"tokenizer": "union"},
            "tensor embed.weight: expected (7, 4), found (8, 4)",
        ),
        (
            built({"embed.weight": (8, 4)}, vocab_size=8),
            {},
            "tensor embed.weight: expected (6, 4), found (8, 4)",
        ),
        (built({"layers.2.w": (4, 4)}), {"slices": [{"term": None, "layers": [0, 3]}]}, ""),
        (
            built({}),
            {"slices": [{"term": None, "layers": [0, 3]}]},
            "expected 3 layers, found 2",
        ),
        (
            built({"layers.2.w": (4, 5)}),
            {"slices": [{"term": None, "layers": [0, 3]}]},
            "the built model: layer 2 has other tensors or shapes than the layers of the base",
        ),
    ],
)
def test_a_built_model_has_the_shapes_of_its_recipe(
    found: ModelHeader, recipe: dict[str, Any], words: str
) -> None:
    if not words:
        shapes.check(BASE, found, recipe)
        return
    with pytest.raises(VerificationFailed) as caught:
        shapes.check(BASE, found, recipe)
    assert caught.value.message == words
