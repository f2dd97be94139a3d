"""TSV-M, Iso-C, Iso-CTS and KnOTS: whole builds, and the low-rank path beside the full one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merger.adapter_deltas import ProductDelta
from merger.blocks import split
from merger.errors import InputError
from merger.methods import METHODS
from merger.request import Operand, Recipe, Term
from merger.task_vector import Delta, Factors, TaskVectors
from tests import merging, tiny
from tests.merging import TermOf
from tests.reference import geometry, naive
from tests.test_merger_naive import World

NAME = "model.layers.0.mlp.up_proj.weight"
ALL = ("tsv_m", "iso_c", "iso_cts", "knots")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("spectral"))


def expect(
    world: World,
    output: Path,
    terms: list[TermOf],
    of_matrix: Callable[[dict[int, np.ndarray]], np.ndarray],
    lambda_: float,
) -> None:
    """Expect base + `of_matrix` of the terms that have a matrix, base + λ Σ wτ/N elsewhere."""
    base, vectors = tiny.read_tensors(world.base), world.vectors(terms)
    for name, built in tiny.read_tensors(output).items():
        taus = {term: vector[name] for term, vector in enumerate(vectors) if name in vector}
        delta: Any = 0.0
        if taus and base[name].ndim == 2:
            delta = of_matrix(taus)
        elif taus:
            delta = (
                lambda_ * sum(terms[term].weight * tau for term, tau in taus.items()) / len(terms)
            )
        expected = (base[name].astype(np.float64) + delta).astype(np.float32)
        np.testing.assert_allclose(built, expected, rtol=2**-22, atol=1e-9, err_msg=name)


# With the checkpoint matrices are decomposed whole; the adapters alone have a frame in most.
WEIGHTS = [
    {"first": 1.0, "second": -0.5, "third": 2.0},
    {"first": 1.5, "second": 0.5},
    {"second": 2.0},
]


@pytest.mark.parametrize("weights", WEIGHTS, ids="-".join)
@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "iso_cts"])
def test_matrices_are_merged_by_their_singular_values_the_rest_is_averaged(
    world: World, tmp_path: Path, method: str, weights: dict[str, float]
) -> None:
    terms = world.terms(weights)

    merging.build(tmp_path, world.base, terms, method=method, compute="float64", lambda_=0.75)

    def of_matrix(taus: dict[int, np.ndarray]) -> np.ndarray:
        weighted = [terms[term].weight * tau for term, tau in taus.items()]
        if method == "tsv_m":
            return 0.75 * geometry.tsv_m(weighted, len(terms))
        if method == "iso_c":
            return 0.75 * geometry.iso_c(weighted)
        return 0.75 * geometry.iso_cts(weighted, len(terms), 0.8)

    expect(world, tmp_path, terms, of_matrix, 0.75)


@pytest.mark.parametrize("weights", WEIGHTS, ids="-".join)
@pytest.mark.parametrize(
    "options",
    [
        {"density": 1.0},
        {"density": 0.3, "election": "frequency", "combine": "sum"},
        {"density": 0.5, "tie": "majority", "combine": "max", "min_agreement": 0.5},
    ],
    ids=str,
)
def test_knots_is_ties_in_the_shared_basis(
    world: World, tmp_path: Path, weights: dict[str, float], options: dict[str, Any]
) -> None:
    terms = world.terms(weights, {"second": 0.6})
    options = options | {"lambda_": 0.75}

    merging.build(tmp_path, world.base, terms, method="knots", compute="float64", **options)

    def of_matrix(taus: dict[int, np.ndarray]) -> np.ndarray:
        basis, parts = geometry.shared_parts(list(taus.values()))
        ours = dict(zip(taus, parts, strict=True))
        parameters = merging.parameters_of("knots", **options) | {"scope": "tensor"}
        found = naive.ties(
            [{NAME: ours[term]} if term in ours else {} for term in range(len(terms))],
            [term.weight for term in terms],
            [term.parameters.get("density", options["density"]) for term in terms],
            parameters,
        )
        return basis @ found[NAME]

    expect(world, tmp_path, terms, of_matrix, 0.75)


def test_knots_of_one_whole_adapter_is_the_adapter(world: World, tmp_path: Path) -> None:
    terms = world.terms({"first": 1.0})

    merging.build(tmp_path, world.base, terms, method="knots", density=1.0, compute="float64")

    expect(world, tmp_path, terms, lambda taus: taus[0], 1.0)


class Unseen:
    """A low-rank delta that may not be formed."""

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        self.pair = left, right

    def block(self, block: object) -> torch.Tensor:
        msg = "a whole delta was formed"
        raise AssertionError(msg)

    def factors(self) -> Factors:
        return self.pair


class Whole(ProductDelta):
    """The same delta, not known as a product."""

    def factors(self) -> None:
        return None


def recipe(method: str, terms: int, compute: str = "float64", **parameters: Any) -> Recipe:
    operand = Operand("adapter", "any", 1, "sha256:" + "0" * 64)
    weights = (1.0, -0.5, 2.0, 0.25)[:terms]
    return Recipe(
        method,
        merging.parameters_of(method, **parameters),
        tuple(Term(operand, weight, {}) for weight in weights),
        compute,
    )


def merged(recipe: Recipe, shape: tuple[int, int], deltas: dict[int, Delta]) -> np.ndarray:
    """Return the merged delta, formed block by block as the engine does."""
    vectors = TaskVectors((), {NAME: shape}, lambda _name: Unseen(torch.empty(0), torch.empty(0)))
    step = METHODS[recipe.method](recipe, 1).step(NAME, vectors, deltas)
    return torch.cat([step.combine([], block) for block in split(shape)]).reshape(shape).numpy()


def pairs(shape: tuple[int, int], *ranks: int, dtype: torch.dtype = torch.float64) -> list[Factors]:
    numbers = np.random.default_rng(sum(ranks))
    return [
        (
            torch.tensor(numbers.standard_normal((shape[0], rank)), dtype=dtype),
            torch.tensor(numbers.standard_normal((rank, shape[1])), dtype=dtype),
        )
        for rank in ranks
    ]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(("compute", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("shape", [(300, 700), (700, 300), (1000, 300)])
def test_the_low_rank_path_forms_no_delta_and_has_the_same_result(
    method: str, compute: str, tolerance: float, shape: tuple[int, int]
) -> None:
    # Of several blocks each; the last is tall for KnOTS too. With density 1 no trim can turn on rounding.
    options = {"density": 1.0, "combine": "sum"} if method == "knots" else {}
    given = recipe(method, 3, compute, **options)
    found = pairs(shape, 8, 16, 4, dtype=getattr(torch, compute))

    low = merged(given, shape, {term: Unseen(*pair) for term, pair in enumerate(found)})
    full = merged(given, shape, {term: Whole(*pair) for term, pair in enumerate(found)})

    assert low.dtype == getattr(np, compute)
    if method == "knots" and compute == "float32":
        # Where the elected sum is nearly 0 the paths may elect different signs.
        tolerance = 1e-3
    assert np.linalg.norm(low - full) < tolerance * np.linalg.norm(full)


@pytest.mark.parametrize("method", ALL)
def test_ranks_that_fill_the_matrix_are_merged_whole(method: str) -> None:
    shape = (12, 20)
    found = pairs(shape, 6, 6)
    deltas = {term: ProductDelta(*pair) for term, pair in enumerate(found)}

    with pytest.raises(AssertionError, match="was formed"):
        merged(recipe(method, 2), shape, {0: Unseen(*found[0]), 1: Unseen(*found[1])})
    assert merged(recipe(method, 2), shape, deltas).any()


@pytest.mark.parametrize("method", ALL)
def test_adapters_that_share_a_factor_need_no_arbitrary_vectors(method: str) -> None:
    # As with LoRA-FA, where all adapters have one A.
    shape = (300, 200)
    right = pairs(shape, 8, dtype=torch.float32)[0][1]
    lefts = [left for left, _ in pairs(shape, 8, 8, dtype=torch.float32)]
    options = {"density": 1.0, "combine": "sum"} if method == "knots" else {}
    given = recipe(method, 2, "float32", **options)

    low = merged(given, shape, {term: Unseen(left, right) for term, left in enumerate(lefts)})
    full = merged(given, shape, {term: Whole(left, right) for term, left in enumerate(lefts)})

    assert np.linalg.norm(low - full) < 1e-5 * np.linalg.norm(full)


@pytest.mark.parametrize("method", ALL)
def test_terms_of_weight_zero_leave_the_base_alone(
    world: World, tmp_path: Path, method: str
) -> None:
    terms = world.terms({"first": 0.0, "third": 0.0})

    merging.build(tmp_path, world.base, terms, method=method)

    assert merging.raw_tensors(tmp_path) == merging.raw_tensors(world.base)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("names", [("first", "second"), ("first", "third")])
def test_order_names_and_threads_change_no_bit(
    world: World, tmp_path: Path, method: str, names: tuple[str, str]
) -> None:
    terms = world.terms(dict(zip(names, (1.0, 0.5), strict=True)))
    renamed = [
        TermOf(term.folder, term.weight, term.kind, f"other-{number}")
        for number, term in enumerate(terms)
    ]

    one = merging.build(tmp_path / "a", world.base, terms, threads=1, method=method)
    other = merging.build(tmp_path / "b", world.base, renamed[::-1], threads=3, method=method)

    assert one.model_digest == other.model_digest


@pytest.mark.parametrize("method", ALL)
def test_a_value_that_is_no_number_stops_the_build_with_its_term(
    world: World, tmp_path: Path, method: str
) -> None:
    broken = tiny.tiny_checkpoint(tmp_path / "broken", base=world.base, seed=9, dtype="float32")
    tensors = tiny.read_tensors(broken)
    tensors[NAME] = np.full_like(tensors[NAME], np.inf)
    tiny.write_safetensors(broken / "model.safetensors", tensors)
    terms = [*world.terms({"third": 1.0}), TermOf(broken, kind="checkpoint")]

    with pytest.raises(InputError) as caught:
        merging.build(tmp_path / "out", world.base, terms, method=method)

    assert (caught.value.tensor, caught.value.term) == (NAME, "checkpoint broken@1")


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("name", [NAME, NAME.replace("up", "down")])  # of more rows, more columns
def test_a_value_that_its_weight_makes_infinite_stops_the_build(
    world: World, tmp_path: Path, method: str, name: str
) -> None:
    large = tiny.tiny_checkpoint(tmp_path / "large", base=world.base, seed=9, dtype="float32")
    tensors = tiny.read_tensors(large)
    tensors[name] = tensors[name] * 1e31
    tiny.write_safetensors(large / "model.safetensors", tensors)
    terms = [*world.terms({"third": 1.0}), TermOf(large, 1e10, "checkpoint")]

    with pytest.raises(InputError) as caught:
        merging.build(tmp_path / "out", world.base, terms, method=method)

    assert caught.value.tensor == name
    assert "beyond the range of F32" in str(caught.value)


@pytest.mark.parametrize("method", ALL)
def test_factors_whose_scale_overflows_stop_the_build(tmp_path: Path, method: str) -> None:
    base = tiny.tiny_base(tmp_path / "base", seed=1)
    huge = tiny.tiny_adapter(tmp_path / "huge", base=base, seed=1, alpha=1e41)

    with pytest.raises(InputError) as caught:
        merging.build(tmp_path / "out", base, [TermOf(huge)], method=method)

    assert caught.value.term == "adapter huge@1"


@pytest.mark.parametrize("method", ALL)
def test_a_tensor_without_elements_has_a_step(method: str) -> None:
    left, right = torch.empty(0, 2), torch.empty(2, 5)
    vectors = TaskVectors((), {NAME: (0, 5)}, lambda _name: ProductDelta(left, right))

    step = METHODS[method](recipe(method, 1), 1).step(NAME, vectors, {0: ProductDelta(left, right)})

    assert step.kept is None


def test_every_tie_and_election_of_ties_arrives_in_knots() -> None:
    properties = merging.parameters_of("ties")
    assert set(merging.parameters_of("knots")) == set(properties) - {"scope"}
    shape = (40, 30)
    deltas = {term: Unseen(*pair) for term, pair in enumerate(pairs(shape, 3, 3))}

    results = {
        options: merged(
            recipe("knots", 2, density=0.5, tie=options[0], combine=options[1]), shape, deltas
        ).tobytes()
        for options in itertools.product(("positive", "zero"), ("mean", "sum", "max"))
    }

    assert len(set(results.values())) >= 3
