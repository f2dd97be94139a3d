"""`registry import mergekit`: the same weights as mergekit's own build, or the whole of what stands
in the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import catalog, documents
from registry.index import Index
from registry.mergekit import Maps, Weights, parse_map, translate
from registry.request import declare
from registry.spec import Catalog
from registry.tree import WorkingTree
from schemas.model import read_model
from schemas.vocabulary import read_tokens
from tests import merging, tiny
from tests.conftest import Repository
from tests.reference import inputs

EXAMPLES = Path(__file__).parent / "examples/mergekit"
VALID = sorted((EXAMPLES / "valid").glob("*.yaml"))
INVALID = sorted((EXAMPLES / "invalid").glob("*.yaml"))
CASES = json.loads((Path(__file__).parent / "reference/mergekit.json").read_text())["cases"]
REFERENCE = {case["name"]: case for case in CASES}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a catalog's root with a base of three layers, its checkpoints and an adapter."""
    root = tmp_path_factory.mktemp("mergekit")
    (root / "catalog/merges").mkdir(parents=True)
    (root / "catalog/registry.yaml").write_text("kind: registry\nname: test\n")
    for name in inputs.LLAMAS:
        kind = "base" if name == "tiny" else "checkpoint"
        folder = declare_in(root, kind, name)
        tiny.write_safetensors(folder / "model.safetensors", inputs.llama(name))
        for file, data in inputs.llama_files(name).items():
            tiny.write_json(folder / file, data)
        declare_in(root, kind, name)
    config, factors = inputs.lora()
    folder = declare_in(root, "adapter", "style")
    tiny.write_safetensors(folder / "adapter_model.safetensors", factors)
    tiny.write_json(folder / "adapter_config.json", config)
    declare_in(root, "adapter", "style")
    return root


def declare_in(root: Path, kind: str, name: str) -> Path:
    """Write the YAML file of an ingredient whose weights lie there (or will), return the folder."""
    place = root / f"catalog/{kind}s/{name}" / ("" if kind == "base" else "1")
    folder = place / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    version = "" if kind == "base" else "version: 1\nbase: tiny\n"
    digest = merging.digest_of(folder)
    text = f'kind: {kind}\nname: {name}\n{version}weights: {{digest: "{digest}"}}\n'
    (place / f"{kind}.yaml").write_text(text)
    return folder


def translated(
    root: Path,
    file: Path,
    *maps: str,
    base: str | None = None,
    with_weights: bool = True,
    padding: int = 0,
) -> tuple[str, list[str]]:
    """Return the spec's text, and the problems as they are shown."""
    loaded = catalog.load(WorkingTree(root), Index(root)).catalog
    document, problems = documents.parse(file.read_bytes(), file.name)
    assert document is not None, problems

    def weights(name: str) -> Weights:
        folder = root / loaded.base(name).folder
        return Weights(tuple(read_model(folder).tensors), padding) if with_weights else Weights()

    known = Maps(loaded, parse_map(maps, loaded))
    translation, problems = translate(document, known, name=file.stem, base=base, weights=weights)
    return translation.text() if translation else "", [one.text() for one in problems]


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_the_imported_spec_gives_the_weights_of_mergekit(
    file: Path, models: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(models, root)

    text, problems = translated(root, file)

    assert problems == []
    (root / f"catalog/merges/{file.stem}.yaml").write_text(text)
    loaded = catalog.load(WorkingTree(root), Index(root)).catalog
    request: dict[str, Any] = declare(loaded)[file.stem].pin({})
    folders = {one.digest: root / one.folder for one in loaded.ingredients.values()}
    merging.build_request(tmp_path / "out", request, folders)
    built, case = tiny.read_tensors(tmp_path / "out"), REFERENCE[file.name]
    expected = {name: np.float32(numbers) for name, numbers in case["expected"].items()}
    if "tokens" in case:
        tokens = read_tokens(tmp_path / "out") or {}
        assert len(tokens) == len(built["lm_head.weight"])
        assert tokens.keys() == case["tokens"].keys()
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            expected[name] = in_the_order_of(tokens, case["tokens"], expected[name])
    assert set(built) == set(expected)
    for name, numbers in expected.items():
        # Float32 sums of a few terms in another order, and an arc's sines.
        np.testing.assert_allclose(built[name], numbers, rtol=0, atol=2e-6)


def in_the_order_of(tokens: dict[str, int], theirs: dict[str, int], rows: tiny.Array) -> tiny.Array:
    return rows[[theirs[token] for token in sorted(tokens, key=tokens.__getitem__)]]


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_what_cannot_be_expressed_is_told_in_these_words(file: Path, models: Path) -> None:
    text, problems = translated(models, file)

    assert text == ""
    assert "\n".join([*problems, ""]) == file.with_suffix(".txt").read_text("utf-8")


def test_gradients_behind_filters_need_the_layers_of_the_base(models: Path) -> None:
    file = EXAMPLES / "valid/slerp-classic.yaml"

    text, problems = translated(models, file, with_weights=False)

    assert text == ""
    assert problems == [
        "slerp-classic.yaml:13:14: parameters.t[0].value: expected a number beside a filter, found a "
        "gradient for t\n"
        "  hint: it takes one rule per layer; fetch the base's weights, whose layers tell",
    ]


def test_a_range_of_layers_is_believed_where_the_base_is_not_at_hand(models: Path) -> None:
    text, problems = translated(
        models, EXAMPLES / "valid/slice-of-all-layers.yaml", with_weights=False
    )

    assert problems == []
    assert "# - layer_range [0, 3] is taken for all layers of the base\n" in text


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            "dtype: float64\n",
            "1:8: dtype: no artifact here is float64\n  hint: write out_dtype: float32",
        ),
        ("merge_method: ties\n", ""),
        ("tokenizer: {source: base}\n", ""),
        ("tokenizer_source: models/tiny\n", ""),
    ],
)
def test_what_is_written_beside_the_merge(
    change: str, problem: str, models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "beside.yaml"
    lines = "base_model: models/tiny\nmodels: [{model: models/math, parameters: {weight: 1}}]\n"
    method = "" if "merge_method" in change else "merge_method: task_arithmetic\n"
    file.write_text(change + method + lines)

    _, problems = translated(models, file)

    assert problems == ([f"beside.yaml:{problem}"] if problem else [])


WITH_TOKENIZER = """\
merge_method: METHOD
base_model: models/tiny
models: [{model: models/math, parameters: {weight: 1, density: DENSITY}}]
tokenizer_source: SOURCE
"""


@pytest.mark.parametrize("source", ["base", "union"])
def test_padding_that_a_share_would_count_is_refused(
    source: str, models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "padded.yaml"
    text = WITH_TOKENIZER.replace("SOURCE", source)
    file.write_text(text.replace("METHOD", "ties").replace("DENSITY", "0.5"))

    _, problems = translated(models, file, padding=2)
    unpadded, none = translated(models, file)
    unknown, _ = translated(models, file, with_weights=False)

    assert problems == [
        "padded.yaml:4:19: tokenizer_source: the base has 2 rows behind its last token, which mergekit "
        "leaves out\n  hint: ties looks at whole tensors; without the setting mergekit keeps them, as here"
    ]
    assert none == []
    assert "leaves out" not in unpadded
    assert "the base, whose weights are not at hand, is taken to have none" in unknown


@pytest.mark.parametrize(("method", "density"), [("task_arithmetic", "0.5"), ("ties", "1")])
def test_padding_is_kept_where_elements_do_not_see_each_other(
    method: str, density: str, models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "padded.yaml"
    text = WITH_TOKENIZER.replace("SOURCE", "base")
    file.write_text(text.replace("METHOD", method).replace("DENSITY", density))

    text, problems = translated(models, file, padding=2)

    assert problems == []
    assert (
        "# - mergekit leaves out rows behind the last token of the tokenizer; they are kept" in text
    )


def test_layers_of_what_is_not_at_hand_are_believed_where_they_are_written(
    two_bases: Path, tmp_path: Path
) -> None:
    file = tmp_path / "stack.yaml"
    slices = "[{sources: [{model: both, layer_range: [0, 9]}]}]"
    file.write_text(f"merge_method: passthrough\nslices: {slices}\ndtype: bfloat16\n")
    whole = tmp_path / "whole.yaml"
    whole.write_text("merge_method: passthrough\nmodels: [{model: both}]\n")

    text, problems = translated(two_bases, file)
    _, unknown = translated(two_bases, whole)
    _, absent = translated(two_bases, EXAMPLES / "valid/passthrough-model.yaml", with_weights=False)

    assert problems == []
    assert "    - {merge: both, layers: [0, 9]}\noutput: {dtype: bfloat16}\n" in text
    assert "computes in bfloat16" not in text  # nothing is computed
    message = "expected layer_range, found a model whose number of layers is not known here"
    for told, place in ((unknown, "whole.yaml:2:18"), (absent, "passthrough-model.yaml:3:12")):
        assert told == [
            f"{place}: models[0].model: {message}\n"
            "  hint: write slices, each with one source and its layer_range"
        ]


def test_paths_mean_what_the_command_line_says(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "mapped.yaml"
    file.write_text(
        "merge_method: task_arithmetic\nbase_model: a/b\nmodels:\n"
        "  - {model: a/b+c, parameters: {weight: 1}}\n"
        "  - {model: d, parameters: {weight: 2}}\n"
    )

    text, problems = translated(
        models, file, "a/b+c=adapter:style@1", "d=checkpoint:law@1", base="tiny"
    )

    assert problems == []
    assert "    - {adapter: style, version: 1, weight: 1.0}\n" in text
    assert "    - {checkpoint: law, version: 1, weight: 2.0}\n" in text


@pytest.fixture
def two_bases(models: Path, tmp_path: Path) -> Path:
    """Return the catalog with another base, a checkpoint of it, a second version and a merge."""
    root = tmp_path / "root"
    shutil.copytree(models, root)
    shutil.copytree(root / "catalog/bases/tiny", root / "catalog/bases/other")
    shutil.copytree(root / "catalog/checkpoints/law/1", root / "catalog/checkpoints/law/2")
    shutil.copytree(root / "catalog/checkpoints/math", root / "catalog/checkpoints/foreign")
    for file, changes in (
        ("bases/other/base.yaml", (("name: tiny", "name: other"),)),
        ("checkpoints/law/2/checkpoint.yaml", (("version: 1", "version: 2"),)),
        (
            "checkpoints/foreign/1/checkpoint.yaml",
            (("name: math", "name: foreign"), ("base: tiny", "base: other")),
        ),
    ):
        path = root / "catalog" / file
        text = path.read_text()
        for old, new in changes:
            text = text.replace(old, new)
        path.write_text(text)
    (root / "catalog/merges/both.yaml").write_text(
        "kind: merge\nname: both\nbase: tiny\nrecipe:\n  method: linear\n"
        "  terms: [{checkpoint: law, version: 2}]\n"
    )
    return root


def test_operands_have_one_base_and_one_meaning(two_bases: Path, tmp_path: Path) -> None:
    file = tmp_path / "mixed.yaml"
    file.write_text(
        "merge_method: linear\nmodels:\n"
        "  - {model: law, parameters: {weight: 1}}\n"
        "  - {model: both, parameters: {weight: 1}}\n"
        "  - {model: foreign, parameters: {weight: 1}}\n"
        "  - {model: other+style, parameters: {weight: 1}}\n"
    )

    text, problems = translated(two_bases, file)

    assert text == ""
    assert problems == [
        "mixed.yaml:1:1: base_model: expected one base, found both on tiny and foreign on other\n"
        "  hint: all operands of a merge have the same base",
        "mixed.yaml:3:13: models[0].model: law may be checkpoint:law@1 or checkpoint:law@2\n"
        "  hint: choose: --map law=checkpoint:law@2",
        "mixed.yaml:6:13: models[3].model: expected an adapter on base:other, found adapter:style@1 "
        "on base:tiny\n  hint: an adapter is a task vector of its own base",
    ]


WHOLE = [*VALID, *INVALID]
STRANGE = (None, True, 0, -3, 2.5, "", "x", "*", [], {}, [None], [0.5, "b"], {"filter": 3}, [[1]])


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_a_file_of_any_form_is_translated_or_refused(
    models: Path, file: Path, data: st.DataObject
) -> None:
    document, _ = documents.parse(file.read_bytes(), "strange.yaml")
    assert document is not None
    holder, key = data.draw(st.sampled_from(list(places(document.data))))
    if data.draw(st.booleans()) and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = data.draw(st.sampled_from(STRANGE))
    loaded = loaded_once(models)

    translation, problems = translate(
        document, Maps(loaded, {}), name="strange", base=None, weights=lambda _: Weights(NAMES, 0)
    )

    assert (translation is None) == bool(problems)
    if translation:
        again, found = documents.parse(translation.text().encode(), "a.yaml")
        assert found == []
        assert again is not None
        assert json.loads(json.dumps(again.data)) == json.loads(json.dumps(translation.spec))


NAMES = tuple(sorted(inputs.llama_shapes()))


@cache
def loaded_once(root: Path) -> Catalog:
    return catalog.load(WorkingTree(root), Index(root)).catalog


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return every collection inside plain data with each of its keys."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from places(value[key])


LORAS = """\
merge_method: dare_ties
base_model: hub/Tiny-Llama
models:
  - model: hub/Tiny-Llama+outputs/formal
    parameters: {weight: [0.2, 1.0]}
  - model: hub/Tiny-Llama@main+outputs/brief-v2
    parameters: {weight: 0.5, density: 0.3}
parameters: {density: 0.6, int8_mask: true}
dtype: bfloat16
tokenizer_source: base
chat_template: chatml
normalise: true
"""
TRANSLATED = """\
# yaml-language-server: $schema=../../schemas/merge.schema.json
# Translated from mergekit's loras.yaml.
# - "normalise" means nothing to mergekit
# - the revision of hub/Tiny-Llama is not carried over: the catalog pins digests
# - int8_mask changes how a mask is stored, not what is computed
# - mergekit gives the first number of a gradient to the embeddings, the final norm and the head: written out
# - what is dropped is drawn anew: mergekit's masks depend on its seed and on the order of its tasks, ours on recipe.seed, the operand and the tensor; no seed makes them equal
# - mergekit's rescale scales what is kept to the L1 norm of the whole; here it is divided by the probability of keeping it, which is the same on average
# - mergekit computes in bfloat16; here in float32, rounded once, which is closer to the exact numbers and so not bit for bit the same
# - the tokenizer is the base's, and every operand must have its vocabulary
# - chat_template is not carried over: it is the base's, and no weight
kind: merge
name: loras
base: tiny-llama
recipe:
  method: dare_ties
  parameters: {combine: sum, rescale: true}
  terms:
    - {adapter: formal, version: 1, weight: {layers: [0.2, 1.0], embeddings: 0.2, head: 0.2}, parameters: {density: 0.6}}
    - {adapter: brief, version: 2, weight: 0.5, parameters: {density: 0.3}}
output: {dtype: bfloat16}
"""
MAP = ("--map", "outputs/brief-v2=adapter:brief@2")


def test_the_spec_goes_to_standard_output_with_what_was_done(repository: Repository) -> None:
    (repository.root / "loras.yaml").write_text(LORAS)

    ran = repository.run("import", "mergekit", "loras.yaml", *MAP)

    assert (ran.code, ran.out, ran.err) == (0, TRANSLATED, "")


def test_with_a_name_it_becomes_a_merge_of_the_catalog(repository: Repository) -> None:
    (repository.root / "loras.yaml").write_text(LORAS)
    file = repository.root / "catalog/merges/skills.yaml"

    ran = repository.run("import", "mergekit", "loras.yaml", "--name", "skills", *MAP)
    again = repository.run("import", "mergekit", "loras.yaml", "--name", "skills", *MAP)

    assert (ran.code, ran.out) == (0, f"skills  {file}\n")
    assert file.read_text() == TRANSLATED.replace("name: loras", "name: skills")
    assert repository.run("validate").code == 0
    assert again.code == 1
    assert again.err == (
        f"registry: {file} stands there already\n  hint: choose another place, or remove it\n"
    )


def test_all_problems_of_a_file_are_told_at_once(repository: Repository) -> None:
    text = LORAS.replace("dare_ties", "ties").replace("0.5", "-0.5")
    (repository.root / "loras.yaml").write_text(text + "out_dtype: float8\n")

    ran = repository.run("import", "mergekit", "loras.yaml", "-o", "out.yaml")

    assert ran.code == 1
    assert ran.out == ""
    assert ran.err == (
        "loras.yaml:6:12: models[1].model: the catalog has nothing of the name of outputs/brief-v2\n"
        "  hint: --map outputs/brief-v2=adapter:brief@2\n"
        "loras.yaml:7:26: models[1].parameters.weight: normalize divides a negative weight away, "
        "which no method here does: found the weight -0.5\n"
        "  hint: to subtract, write normalize: false; then combine: sum says the same here\n"
        "loras.yaml:12:12: normalise: means nothing to mergekit\n"
        "loras.yaml:13:12: out_dtype: expected float32, bfloat16 or float16, found float8\n"
        "4 problems in 1 of 1 file\n"
    )
    assert not (repository.root / "out.yaml").exists()


def test_misspelt_keys_are_told_beside_what_they_cause(repository: Repository) -> None:
    (repository.root / "typo.yaml").write_text(
        "merge_method: linear\nmodels:\n  - model: outputs/formal\n"
        "    parameters: {weigth: 1}\n  - model: outputs/average\n    paramters: {weight: 1}\n"
    )

    ran = repository.run("import", "mergekit", "typo.yaml")

    assert ran.code == 1
    assert (
        "typo.yaml:4:26: models[0].parameters.weigth: means nothing to mergekit\n"
        "  hint: did you mean weight\n"
    ) in ran.err
    assert "typo.yaml:6:16: models[1].paramters: means nothing to mergekit\n" in ran.err


def test_anchors_are_refused_as_in_every_file(repository: Repository) -> None:
    text = "merge_method: linear\nparameters: &all {weight: 1}\nmodels: []\n"
    (repository.root / "anchor.yaml").write_text(text)

    ran = repository.run("import", "mergekit", "anchor.yaml")

    assert ran.code == 1
    assert ran.err.startswith("anchor.yaml:2:13: parameters: expected no anchor, found &all\n")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ("--map", "x=adapter:brief"),
            "--map: expected PATH=… with base:NAME, adapter:NAME@VERSION, "
            "checkpoint:NAME@VERSION or merge:NAME, found x=adapter:brief",
            "",
        ),
        (
            ("--map", "x=adapter:brief@7"),
            "--map: the catalog has no adapter:brief@7",
            "did you mean adapter:brief@2",
        ),
        (("--base", "tiny-lama"), "no base tiny-lama", "did you mean tiny-llama"),
        (
            ("--name", "My Model"),
            "expected a name of a-z, 0-9 and -, found My Model",
            "give one with --name",
        ),
    ],
)
def test_a_wrong_option_is_wrong_usage(
    repository: Repository, arguments: tuple[str, str], message: str, hint: str
) -> None:
    (repository.root / "loras.yaml").write_text(LORAS)

    ran = repository.run("import", "mergekit", "loras.yaml", *arguments)

    assert ran.code == 64
    assert ran.err == f"registry: {message}\n" + (f"  hint: {hint}\n" if hint else "")


def test_a_translation_that_validate_would_refuse_is_refused(repository: Repository) -> None:
    text = (
        "merge_method: linear\nmodels:\n"
        "  - {model: tiny-llama+formal, parameters: {weight: 0}}\n"
        "  - {model: average, parameters: {weight: 0}}\n"
    )
    (repository.root / "zero.yaml").write_text(text)

    ran = repository.run("import", "mergekit", "zero.yaml")

    assert ran.code == 1
    assert ran.err == (
        "catalog/merges/zero.yaml: recipe.terms: as translated, expected a sum of weights above 0, "
        "found 0\n1 problem in 1 of 1 file\n"
    )
