"""Whole builds of the spherical means and of Model Stock against `tests/reference/geometry.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merger.errors import InputError
from tests import merging, tiny
from tests.merging import TermOf
from tests.reference import geometry
from tests.test_merger_naive import World

Arrays = list[np.ndarray]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("spherical"))


def operands(world: World, terms: list[TermOf], name: str) -> tuple[np.ndarray, Arrays]:
    """Return the base's values of a tensor and every term's τ, zeros where it has none."""
    base = tiny.read_tensors(world.base)[name].astype(np.float64)
    return base, [vector.get(name, np.zeros_like(base)) for vector in world.vectors(terms)]


def expect(
    world: World,
    output: Path,
    terms: list[TermOf],
    merged: Callable[[Arrays], np.ndarray],
    space: str = "model",
) -> None:
    """Expect of every tensor what `merged` makes of whole θᵢ, or base + what of whole τᵢ."""
    for name, built in tiny.read_tensors(output).items():
        base, taus = operands(world, terms, name)
        whole = merged([base + tau for tau in taus]) if space == "model" else base + merged(taus)
        # float64 inside: what is left is the rounding to float32.
        np.testing.assert_allclose(
            built, whole.astype(np.float32), rtol=2**-23, atol=1e-12, err_msg=name
        )


def flat(function: Callable[[Arrays], np.ndarray]) -> Callable[[Arrays], np.ndarray]:
    return lambda arrays: function([array.ravel() for array in arrays]).reshape(arrays[0].shape)


def two(world: World, *names: str) -> list[TermOf]:
    return [TermOf(world.folders[name], kind=_kind(name)) for name in names]


def _kind(name: str) -> str:
    return "checkpoint" if name == "third" else "adapter"


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("names", [("first", "third"), ("third", "second")])
def test_slerp_is_that_of_whole_models(
    world: World, tmp_path: Path, names: tuple[str, str], t: float
) -> None:
    terms = two(world, *names)

    merging.build(tmp_path, world.base, terms, method="slerp", compute="float64", t=t)

    expect(world, tmp_path, terms, flat(lambda arrays: geometry.slerp(*arrays, t)))


def test_the_ends_of_slerp_are_the_models_to_the_bit(world: World, tmp_path: Path) -> None:
    terms = two(world, "third", "first")

    merging.build(tmp_path, world.base, terms, method="slerp", t=0.0)

    assert merging.raw_tensors(tmp_path) == merging.raw_tensors(world.folders["third"])


def test_t_may_be_a_schedule(world: World, tmp_path: Path) -> None:
    terms = two(world, "third", "first")
    schedule = {"layers": [0.0, 1.0], "embeddings": 0.5, "head": 0.5}

    merging.build(tmp_path, world.base, terms, method="slerp", t=schedule)

    built = tiny.read_tensors(tmp_path)
    third = tiny.read_tensors(world.folders["third"])
    name = "model.layers.{}.mlp.up_proj.weight"
    np.testing.assert_array_equal(built[name.format(0)], third[name.format(0)])
    base = tiny.read_tensors(world.base)
    np.testing.assert_array_equal(built[name.format(1)], base[name.format(1)])


@pytest.mark.parametrize("space", ["model", "task_vector"])
@pytest.mark.parametrize("granularity", ["tensor", "row", "column"])
def test_nuslerp_is_slerp_by_the_weights(
    world: World, tmp_path: Path, space: str, granularity: str
) -> None:
    terms = world.terms({"first": 1.0, "third": 3.0})
    options = {"space": space, "granularity": granularity}

    merging.build(tmp_path, world.base, terms, method="nuslerp", compute="float64", **options)

    t = terms[1].weight / 4.0
    expect(world, tmp_path, terms, _grouped(t, granularity), space)


def _grouped(t: float, granularity: str) -> Callable[[Arrays], np.ndarray]:
    def between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return geometry.slerp(first, second, t, linear_above=1 - 1e-12)

    def merged(arrays: Arrays) -> np.ndarray:
        if granularity == "tensor" or arrays[0].ndim < 2:
            return flat(lambda flats: between(*flats))(arrays)
        if granularity == "row":
            return geometry.by_row(between, arrays)
        return geometry.by_row(between, [array.T for array in arrays]).T

    return merged


@pytest.mark.parametrize("space", ["model", "task_vector"])
@pytest.mark.parametrize(("method", "steps"), [("multislerp", 1), ("karcher", 10)])
def test_the_means_are_those_of_whole_tensors(
    world: World, tmp_path: Path, method: str, steps: int, space: str
) -> None:
    terms = world.terms({"first": 1.0, "second": 0.5, "third": 2.0})
    options = {"space": space} | ({"tolerance": 1e-12} if method == "karcher" else {})

    merging.build(tmp_path, world.base, terms, method=method, compute="float64", **options)

    weights = [term.weight for term in terms]
    mean = flat(lambda arrays: geometry.spherical_mean(arrays, weights, steps))
    expect(world, tmp_path, terms, mean, space)


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_model_stock_is_that_of_whole_task_vectors(
    world: World, tmp_path: Path, granularity: str
) -> None:
    terms = world.terms({"first": 1.0, "second": 1.0, "third": 1.0})

    merging.build(
        tmp_path,
        world.base,
        terms,
        method="model_stock",
        compute="float64",
        granularity=granularity,
    )

    def merged(taus: Arrays) -> np.ndarray:
        if granularity == "row" and taus[0].ndim == 2:
            return geometry.by_row(lambda *rows: geometry.model_stock(rows), taus)
        return flat(geometry.model_stock)(taus)

    expect(world, tmp_path, terms, merged, "task_vector")


RECIPES: list[dict[str, Any]] = [
    {"method": "nuslerp"},
    {"method": "nuslerp", "granularity": "row"},
    {"method": "multislerp"},
    {"method": "karcher", "space": "task_vector"},
    {"method": "model_stock"},
]


@pytest.mark.parametrize("options", RECIPES, ids=lambda options: "-".join(options.values()))
def test_order_names_and_threads_change_no_bit(
    world: World, tmp_path: Path, options: dict[str, Any]
) -> None:
    terms = world.terms({"first": 1.0, "third": 1.0})
    renamed = [
        TermOf(term.folder, kind=term.kind, name=f"other-{i}") for i, term in enumerate(terms)
    ]

    one = merging.build(tmp_path / "a", world.base, terms, threads=1, **options)
    other = merging.build(tmp_path / "b", world.base, renamed[::-1], threads=3, **options)

    assert one.model_digest == other.model_digest


@pytest.mark.parametrize("method", ["nuslerp", "multislerp", "karcher", "model_stock", "slerp"])
def test_operands_that_are_the_base_keep_its_bits(tmp_path: Path, method: str) -> None:
    base = tiny.tiny_base(tmp_path / "base", seed=5)
    copies = [
        tiny.tiny_adapter(tmp_path / name, base=base, seed=seed, config={"lora_alpha": 0})
        for name, seed in (("one", 1), ("two", 2))
    ]

    built = merging.build(tmp_path / "out", base, [TermOf(copy) for copy in copies], method=method)

    assert merging.raw_tensors(tmp_path / "out") == merging.raw_tensors(base)
    assert built.statistics["nonzero"] == 0.0


@pytest.mark.parametrize("method", ["nuslerp", "multislerp", "karcher"])
@pytest.mark.parametrize("weights", [(1.0, -0.5), (0.0, 0.0)])
def test_weights_that_do_not_average_are_refused(
    world: World, tmp_path: Path, method: str, weights: tuple[float, float]
) -> None:
    terms = world.terms(dict(zip(("first", "third"), weights, strict=True)))

    with pytest.raises(InputError) as caught:
        merging.build(tmp_path, world.base, terms, method=method)

    assert caught.value.field == "recipe.terms"
    assert caught.value.tensor


@pytest.mark.parametrize("method", ["slerp", "karcher", "model_stock"])
def test_a_value_that_is_no_number_stops_the_build_with_its_term(
    world: World, tmp_path: Path, method: str
) -> None:
    broken = tiny.tiny_checkpoint(tmp_path / "broken", base=world.base, seed=9, dtype="float32")
    tensors = tiny.read_tensors(broken)
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    tiny.write_safetensors(broken / "model.safetensors", tensors)
    terms = [*two(world, "third"), TermOf(broken, kind="checkpoint")]

    with pytest.raises(InputError) as caught:
        merging.build(tmp_path / "out", world.base, terms, method=method)

    assert (caught.value.tensor, caught.value.term) == ("model.norm.weight", "checkpoint broken@1")
