"""Whole builds: the algebra of merging, independence of threads and shards, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merger import blocks, engine
from merger.errors import DiskError, InputError
from tests import merging, tiny
from tests.merging import TermOf

METHODS: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear"},
    "task_arithmetic": {"method": "task_arithmetic"},
    "ties": {"method": "ties", "density": 0.3},
    "ties over the model": {"method": "ties", "density": 0.3, "scope": "model", "tie": "majority"},
    "float64": {"method": "ties", "compute": "float64"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with negative zeros and a tensor of integers."""
    folder = tiny.tiny_base(tmp_path_factory.mktemp("world") / "base", seed=5)
    path = folder / "model.safetensors"
    tensors = tiny.read_safetensors(path)
    dtype, shape, data = tensors["model.layers.0.self_attn.q_proj.weight"]
    negative_zeros = b"\x00\x80" * 20
    changed = negative_zeros + data[len(negative_zeros) :]
    tensors["model.layers.0.self_attn.q_proj.weight"] = (dtype, shape, changed)
    tensors["model.steps"] = ("I64", (2,), bytes(range(16)))
    tiny.write_raw(path, tensors)
    return folder


@pytest.fixture(scope="module")
def terms(base: Path) -> list[TermOf]:
    first = tiny.tiny_adapter(base.parent / "first", base=base, seed=1)
    second = tiny.tiny_adapter(
        base.parent / "second", base=base, seed=2, targets=("q_proj", "down_proj"), dtype="bfloat16"
    )
    third = tiny.tiny_checkpoint(base.parent / "third", base=base, seed=3)
    tensors = tiny.read_safetensors(third / "model.safetensors")
    integers = tiny.read_safetensors(base / "model.safetensors")["model.steps"]
    tiny.write_raw(third / "model.safetensors", tensors | {"model.steps": integers})
    return [
        TermOf(first, 1.0),
        TermOf(second, 0.5),
        TermOf(third, 0.25, kind="checkpoint"),
    ]


def weighted(terms: list[TermOf], *weights: float) -> list[TermOf]:
    return [
        TermOf(term.folder, weight, term.kind, term.name)
        for term, weight in zip(terms, weights, strict=True)
    ]


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_weight_zero_leaves_the_base_bit_identical(
    base: Path, terms: list[TermOf], tmp_path: Path, options: dict[str, Any]
) -> None:
    if options["method"] == "linear":
        zeros = [*weighted(terms[:2], 0.0, 0.0), _unchanged(base, tmp_path)]
    else:
        zeros = weighted(terms, 0.0, -0.0, 0.0)

    merging.build(tmp_path / "out", base, zeros, **options)

    assert merging.raw_tensors(tmp_path / "out") == merging.raw_tensors(base)


def _unchanged(base: Path, folder: Path) -> TermOf:
    copy = shutil.copytree(base, folder / "copy")
    (copy / "note.txt").write_text("another digest")
    return TermOf(copy, 1.0, "checkpoint")


def test_adding_and_subtracting_a_task_vector_restores_the_base(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    for number, term in enumerate(terms):
        twin = shutil.copytree(term.folder, tmp_path / f"twin{number}")
        both = [
            TermOf(term.folder, 0.7, term.kind, "one"),
            TermOf(twin, -0.7, term.kind, "two"),
        ]
        merging.build(tmp_path / f"out{number}", base, both)
        assert merging.raw_tensors(tmp_path / f"out{number}") == merging.raw_tensors(base)


def test_density_one_makes_trimming_the_identity(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    merging.build(tmp_path / "a", base, terms[:1], method="ties", density=1.0, combine="sum")
    merging.build(tmp_path / "b", base, terms[:1], method="task_arithmetic")

    assert merging.raw_tensors(tmp_path / "a") == merging.raw_tensors(tmp_path / "b")


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_the_order_of_the_terms_changes_no_bit(
    base: Path, terms: list[TermOf], tmp_path: Path, options: dict[str, Any]
) -> None:
    first = merging.build(tmp_path / "a", base, terms, **options)
    second = merging.build(tmp_path / "b", base, terms[::-1], **options)

    assert first.artifact_digest == second.artifact_digest


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_the_number_of_threads_changes_no_bit(
    base: Path,
    terms: list[TermOf],
    tmp_path: Path,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Small blocks, so that tiny tensors have several.
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 48)
    built = [
        merging.build(tmp_path / str(threads), base, terms, threads=threads, **options)
        for threads in (1, 2, 5)
    ]

    assert len({one.artifact_digest for one in built}) == 1
    assert built[0].statistics == built[1].statistics == built[2].statistics


def test_a_memory_limit_changes_no_bit(base: Path, terms: list[TermOf], tmp_path: Path) -> None:
    options = METHODS["ties"]
    free = merging.build(tmp_path / "free", base, terms, **options)
    data = merging.request_of(base, terms, **options)

    tight = engine.build(
        merging.request.parse(data),
        merging.inputs_of(base, terms),
        tmp_path / "tight",
        limits=engine.Limits(torch.device("cpu"), 2, memory_bytes=1000),
        progress=lambda _done, _total, _unit: None,
    )

    assert tight.artifact_digest == free.artifact_digest


def test_a_sharded_base_gives_the_tensors_of_a_single_file(tmp_path: Path) -> None:
    single = tiny.tiny_base(tmp_path / "single", seed=4)
    sharded = tiny.tiny_base(tmp_path / "sharded", seed=4, sharded=True)
    term = TermOf(tiny.tiny_adapter(tmp_path / "adapter", base=single, seed=1))

    one = merging.build(tmp_path / "one", single, [term])
    many = merging.build(tmp_path / "many", sharded, [term])

    assert merging.raw_tensors(tmp_path / "one") == merging.raw_tensors(tmp_path / "many")
    assert one.model_digest == many.model_digest


def test_small_shards_hold_the_same_tensors(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    merging.build(tmp_path / "large", base, terms[:1])
    merging.build(tmp_path / "small", base, terms[:1], max_shard_size=3000)

    files = sorted((tmp_path / "small").glob("*.safetensors"))
    index = json.loads((tmp_path / "small/model.safetensors.index.json").read_text())
    assert merging.raw_tensors(tmp_path / "small") == merging.raw_tensors(tmp_path / "large")
    assert len(files) > 4
    for path in files:
        tensors = tiny.read_safetensors(path)
        assert path.stat().st_size <= 3000 or len(tensors) == 1
        assert {index["weight_map"][name] for name in tensors} == {path.name}


def test_untouched_tensors_lie_in_shards_that_every_merge_shares(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    other = TermOf(tiny.tiny_adapter(tmp_path / "other", base=base, seed=9), -2.0)

    one = merging.build(tmp_path / "one", base, terms[:1])
    two = merging.build(tmp_path / "two", base, [other], method="ties", dtype="bfloat16")

    file = "model-00002-of-00002.safetensors"
    assert one.files[file] == two.files[file]
    assert one.files["model-00001-of-00002.safetensors"].sha256 != (
        two.files["model-00001-of-00002.safetensors"].sha256
    )
    untouched = tiny.read_safetensors(tmp_path / "one" / file)
    assert untouched.items() <= merging.raw_tensors(base).items()
    assert "model.steps" in untouched


def test_a_merge_with_every_tensor_is_a_single_file(base: Path, tmp_path: Path) -> None:
    plain = tiny.tiny_base(tmp_path / "plain")
    term = TermOf(tiny.tiny_checkpoint(tmp_path / "full", base=plain, seed=1), 1.0, "checkpoint")

    merging.build(tmp_path / "out", plain, [term])

    assert [path.name for path in (tmp_path / "out").glob("*.safetensors*")] == [
        "model.safetensors"
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_output_dtype_holds_for_all_float_tensors_and_stands_in_the_config(
    base: Path, terms: list[TermOf], tmp_path: Path, dtype: str
) -> None:
    merging.build(tmp_path, base, terms[:1], dtype=dtype)

    short = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    found = {name: entry[0] for name, entry in merging.raw_tensors(tmp_path).items()}
    assert found.pop("model.steps") == "I64"
    assert set(found.values()) == {short}
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == dtype
    unchanged = (tmp_path / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert unchanged == (dtype == "bfloat16")
    base_norm = tiny.read_tensors(base)["model.norm.weight"]
    np.testing.assert_array_equal(tiny.read_tensors(tmp_path)["model.norm.weight"], base_norm)


def test_wider_types_come_first_so_that_every_tensor_is_aligned(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    path = base / "model.safetensors"
    tensors = tiny.read_safetensors(path)
    tensors["model.a"] = ("BF16", (3,), bytes(6))
    tensors["model.b"] = ("F32", (1,), bytes(4))
    tensors["model.c"] = ("U8", (1,), bytes(1))
    tiny.write_raw(path, tensors)
    term = TermOf(tiny.tiny_adapter(tmp_path / "adapter", base=base, seed=1))

    merging.build(tmp_path / "out", base, [term])

    from safetensors.torch import load_file

    found = load_file(tmp_path / "out/model-00002-of-00002.safetensors")
    assert next(iter(tiny.read_safetensors(tmp_path / "out/model-00002-of-00002.safetensors"))) == (
        "model.b"
    )
    assert found["model.b"].dtype == torch.float32


def test_a_merge_is_an_operand_like_a_checkpoint(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    merging.build(tmp_path / "inner", base, terms[:2], dtype="float32")

    merging.build(
        tmp_path / "outer", base, [TermOf(tmp_path / "inner", 1.0, "merge")], dtype="float32"
    )

    inner, outer = (merging.raw_tensors(tmp_path / name) for name in ("inner", "outer"))
    values = tiny.read_tensors(tmp_path / "inner"), tiny.read_tensors(tmp_path / "outer")
    assert inner.keys() == outer.keys()
    for name, array in values[0].items():
        # base + (inner - base) in float32: one rounding of the difference, one of the sum.
        np.testing.assert_allclose(values[1][name], array, atol=2**-24, rtol=2**-22)


def test_schedules_give_each_layer_its_own_weight(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    schedule = {"layers": [0.0, 1.0], "embeddings": 0.0, "head": 0.0}
    merging.build(tmp_path / "a", base, [TermOf(terms[0].folder, schedule)])
    merging.build(tmp_path / "b", base, terms[:1])

    scheduled, plain = (merging.raw_tensors(tmp_path / name) for name in ("a", "b"))
    for name, tensor in merging.raw_tensors(base).items():
        assert scheduled[name] == (plain[name] if ".layers.1." in name else tensor)


def test_a_linear_merge_counts_terms_without_the_tensor_as_the_base(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    merging.build(tmp_path / "a", base, weighted(terms[:2], 1.0, 3.0), method="linear")
    merging.build(tmp_path / "b", base, weighted(terms[:1], 0.25))

    name = "model.layers.0.self_attn.v_proj.weight"  # only the first has it
    assert merging.raw_tensors(tmp_path / "a")[name] == merging.raw_tensors(tmp_path / "b")[name]


def test_only_what_belongs_to_a_model_is_carried_over(base: Path, tmp_path: Path) -> None:
    source = shutil.copytree(base, tmp_path / "base")
    for name in ("LICENSE", "merges.txt", "README.md", "notes.txt", "chat_template.jinja"):
        (source / name).write_text(name)
    term = TermOf(tiny.tiny_adapter(tmp_path / "adapter", base=source, seed=1))

    built = merging.build(tmp_path / "out", source, [term])

    copied = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"LICENSE", "merges.txt", "chat_template.jinja", "tokenizer.json"} <= copied
    assert "notes.txt" not in copied
    assert (tmp_path / "out/README.md").read_text() != "README.md"
    assert copied == set(built.files)


def test_a_tensor_without_elements_and_one_without_dimensions_are_merged(tmp_path: Path) -> None:
    for folder, value in (("base", 1.0), ("ft", 3.0)):
        (tmp_path / folder).mkdir()
        tiny.write_json(tmp_path / folder / "config.json", {})
        arrays = {"a.empty": np.zeros((0, 4), np.float32), "b.scalar": np.float32(value)}
        tiny.write_safetensors(tmp_path / folder / "model.safetensors", arrays)

    for method in ("ties", "task_arithmetic"):
        term = TermOf(tmp_path / "ft", 0.5, "checkpoint")
        merging.build(tmp_path / method, tmp_path / "base", [term], method=method)

        built = tiny.read_tensors(tmp_path / method)
        assert built["a.empty"].shape == (0, 4)
        assert float(built["b.scalar"]) == 2.0


# --- what is refused -------------------------------------------------------------------------


def refused(output: Path, base: Path, terms: list[TermOf], **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        merging.build(output, base, terms, **options)
    assert not output.exists() or not list(output.iterdir())
    return caught.value


def poisoned(folder: Path, source: Path, file: str, name: str, value: float) -> Path:
    """Copy a folder and set the last element of one tensor."""
    copy = shutil.copytree(source, folder)
    tensors = tiny.read_safetensors(copy / file)
    dtype, shape, data = tensors[name]
    bad = tiny._encode({"F32": "float32", "BF16": "bfloat16"}[dtype], np.float32([value]))
    tiny.write_raw(copy / file, tensors | {name: (dtype, shape, data[: -len(bad)] + bad)})
    return copy


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_a_non_finite_checkpoint_is_refused_by_name(
    base: Path, terms: list[TermOf], tmp_path: Path, options: dict[str, Any], value: float
) -> None:
    name = "model.norm.weight"
    bad = poisoned(tmp_path / "bad", terms[2].folder, "model.safetensors", name, value)

    for number, weight in enumerate((1.0, 0.0)):
        both = [*terms[:1], TermOf(bad, weight, "checkpoint")]
        error = refused(tmp_path / f"out{number}", base, both, **options)
        assert (error.tensor, error.term) == (name, "checkpoint bad@1")


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_a_non_finite_factor_is_refused_by_name(
    base: Path, terms: list[TermOf], tmp_path: Path, options: dict[str, Any]
) -> None:
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    file = "adapter_model.safetensors"
    bad = poisoned(tmp_path / "bad", terms[0].folder, file, name, float("nan"))

    error = refused(tmp_path / "out", base, [TermOf(bad), terms[1]], **options)

    assert (error.tensor, error.term) == (name, "adapter bad@1")


@pytest.mark.parametrize(
    "name",
    ["model.norm.weight", "model.layers.0.self_attn.q_proj.weight"],
    ids=["copied", "merged"],
)
def test_a_non_finite_base_is_refused_by_name(
    base: Path, terms: list[TermOf], tmp_path: Path, name: str
) -> None:
    bad = poisoned(tmp_path / "bad", base, "model.safetensors", name, float("inf"))

    error = refused(tmp_path / "out", bad, terms[:1])

    assert (error.tensor, error.term) == (name, "base tiny")


@pytest.mark.parametrize("threads", [1, 9])
def test_of_two_errors_the_one_of_the_first_tensor_is_told(
    base: Path, terms: list[TermOf], tmp_path: Path, threads: int
) -> None:
    # A tensor's factors are read long before the tensors ahead of it are merged.
    first = "model.layers.0.mlp.down_proj.weight"
    factor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    late = poisoned(
        tmp_path / "late", terms[0].folder, "adapter_model.safetensors", factor, float("nan")
    )
    early = poisoned(tmp_path / "early", terms[2].folder, "model.safetensors", first, float("nan"))
    both = [TermOf(late), TermOf(early, kind="checkpoint")]

    error = refused(tmp_path / "out", base, both, threads=threads)

    assert (error.tensor, error.term) == (first, "checkpoint early@1")


def test_a_copied_tensor_that_is_not_finite_is_told_before_its_range(
    base: Path, terms: list[TermOf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 8)
    name = "model.norm.weight"
    bad = poisoned(tmp_path / "bad", base, "model.safetensors", name, float("nan"))
    tensors = tiny.read_safetensors(bad / "model.safetensors")
    dtype, shape, data = tensors[name]
    beyond = tiny.to_bfloat16_bits(np.float32([1e6])).tobytes()
    changed = {name: (dtype, shape, beyond + data[len(beyond) :])}
    tiny.write_raw(bad / "model.safetensors", tensors | changed)

    error = refused(tmp_path / "out", bad, terms[:1], dtype="float16")

    assert (error.tensor, error.term) == (name, "base tiny")


def test_a_result_beyond_the_range_of_its_type_is_refused(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    error = refused(tmp_path / "out", base, weighted(terms[:1], 1e7), dtype="float16")

    assert error.field == "output.dtype"
    assert error.tensor.startswith("model.layers.0.self_attn.")


def test_a_copied_tensor_beyond_the_range_of_the_output_is_refused(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    bad = poisoned(tmp_path / "bad", base, "model.safetensors", "model.norm.weight", 1e6)

    error = refused(tmp_path / "out", bad, terms[:1], dtype="float16")

    assert (error.tensor, error.field) == ("model.norm.weight", "output.dtype")


def test_a_checkpoint_without_a_tensor_of_the_base_is_refused(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    bad = shutil.copytree(terms[2].folder, tmp_path / "bad")
    tensors = tiny.read_safetensors(bad / "model.safetensors")
    del tensors["model.norm.weight"]
    tiny.write_raw(bad / "model.safetensors", tensors)

    error = refused(tmp_path / "out", base, [TermOf(bad, 1.0, "checkpoint")])

    assert (error.tensor, error.term) == ("model.norm.weight", "checkpoint bad@1")
    assert error.why == "expected this tensor of the base, found none"


def test_another_shape_unknown_tensor_or_integer_is_refused(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    changes = {
        "shape": {"model.norm.weight": ("BF16", (8, 2), bytes(32))},
        "unknown": {"model.extra": ("BF16", (2,), bytes(4))},
        "dtype": {"model.norm.weight": ("I16", (16,), bytes(32))},
        "integers": {"model.steps": ("I64", (2,), bytes(16))},
    }
    for kind, change in changes.items():
        bad = shutil.copytree(terms[2].folder, tmp_path / kind)
        tensors = tiny.read_safetensors(bad / "model.safetensors")
        tiny.write_raw(bad / "model.safetensors", tensors | change)

        error = refused(tmp_path / "out", base, [TermOf(bad, 1.0, "checkpoint")])

        assert [error.tensor] == list(change)
        assert error.term == f"checkpoint {kind}@1"


def test_another_vocabulary_is_refused(base: Path, terms: list[TermOf], tmp_path: Path) -> None:
    larger = shutil.copytree(terms[2].folder, tmp_path / "larger")
    config = json.loads((larger / "config.json").read_text())
    tiny.write_json(larger / "config.json", config | {"vocab_size": 300})
    renamed = shutil.copytree(terms[2].folder, tmp_path / "renamed")
    text = (renamed / "tokenizer.json").read_text().replace('"\\u0120the"', '"\\u0120eth"')
    (renamed / "tokenizer.json").write_text(text)
    same = shutil.copytree(terms[2].folder, tmp_path / "same")
    data = json.loads((same / "tokenizer.json").read_text())
    (same / "tokenizer.json").write_text(json.dumps(data))

    for folder in (larger, renamed):
        error = refused(tmp_path / "out", base, [TermOf(folder, 1.0, "checkpoint")])
        assert error.term == f"checkpoint {folder.name}@1"
        assert "vocabulary" in error.why
    merging.build(tmp_path / "out", base, [TermOf(same, 1.0, "checkpoint")])


def test_weights_that_cannot_be_averaged_are_refused_before_anything_is_read(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    negative = refused(tmp_path / "a", base, weighted(terms[:2], 1.0, -0.5), method="linear")
    zero = {"layers": [1.0, 0.0]}
    nothing = refused(tmp_path / "b", base, weighted(terms[:1], zero), normalize=True)
    options = {"method": "ties", "combine": "weighted_mean"}
    mean = refused(tmp_path / "c", base, weighted(terms[:2], 1.0, -0.5), **options)

    assert (mean.field, mean.tensor[:13]) == ("recipe.parameters.combine", "model.layers.")
    assert negative.field == "recipe.terms"
    assert nothing.field == "recipe.parameters.normalize"
    assert nothing.tensor == "model.layers.1.self_attn.q_proj.weight"


def test_a_missing_input_is_refused(base: Path, terms: list[TermOf], tmp_path: Path) -> None:
    data = merging.request_of(base, terms[:1])

    with pytest.raises(InputError, match="no folder was given"):
        merging.build_request(tmp_path / "out", data, {merging.digest_of(base): base})


def test_an_output_folder_with_files_is_refused_and_left_alone(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(InputError) as caught:
        merging.build(tmp_path, base, terms[:1])

    assert caught.value.field == "output"
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_full_disk_is_told_before_anything_is_written(
    base: Path, terms: list[TermOf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))

    with pytest.raises(DiskError) as caught:
        merging.build(tmp_path / "out", base, terms[:1])

    assert caught.value.bytes_needed > 20_000
    assert not list((tmp_path / "out").iterdir())


# --- properties ------------------------------------------------------------------------------


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    weights=st.lists(st.floats(-4, 4), min_size=3, max_size=3),
    density=st.floats(0.01, 1.0),
    combine=st.sampled_from(["mean", "sum", "max"]),
    scope=st.sampled_from(["tensor", "model"]),
)
def test_negating_every_weight_negates_the_delta(
    base: Path,
    terms: list[TermOf],
    tmp_path_factory: pytest.TempPathFactory,
    weights: list[float],
    density: float,
    combine: str,
    scope: str,
) -> None:
    folder = tmp_path_factory.mktemp("negated")
    options = {"method": "ties", "density": density, "combine": combine, "scope": scope}
    options |= {"tie": "zero", "dtype": "float32", "compute": "float64"}
    negated = [-weight for weight in weights]

    merging.build(folder / "a", base, weighted(terms, *weights), **options)
    merging.build(folder / "b", base, weighted(terms, *negated), **options)

    before = tiny.read_tensors(base)
    plus, minus = tiny.read_tensors(folder / "a"), tiny.read_tensors(folder / "b")
    for name, array in before.items():
        magnitude = np.maximum(abs(plus[name]), abs(array))
        np.testing.assert_array_less(
            abs((plus[name] - array) + (minus[name] - array)), magnitude * 2**-21 + 1e-30
        )
