"""Whole builds of the sparsifying methods, SCE and consensus against `reference/naive_sparse.py`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests import merging
from tests.reference import naive_sparse
from tests.test_merger_naive import POSITIVE, SIGNED, World, expect_close

DENSITIES = {"third": 0.75}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("naive"))


DARE: list[tuple[str, dict[str, Any]]] = [
    ("dare_linear", {"normalize": False}),
    ("dare_linear", {"normalize": False, "rescale": False, "lambda": 0.5, "seed": 7}),
    ("dare_ties", {"seed": 2**53 - 1}),
    ("dare_ties", {"trim_density": 0.2, "tie": "majority", "combine": "sum"}),
    ("dare_ties", {"trim_density": 0.2, "scope": "model", "tie": "majority"}),
    ("dare_ties", {"election": "unweighted_frequency", "tie": "zero", "min_agreement": 0.5}),
    ("della_linear", {"epsilon": 0.2}),
    ("della_linear", {"epsilon": 0.2, "rescale": False, "lambda": 2.0, "seed": 5}),
    ("della", {"epsilon": 0.25, "tie": "majority"}),
    ("della", {"election": "unweighted_total", "tie": "largest", "combine": "max"}),
]


@pytest.mark.parametrize(("method", "options"), DARE, ids=str)
def test_what_is_dropped_is_drawn_from_seed_digest_and_name(
    world: World, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    terms = world.terms(SIGNED, DENSITIES)
    options = {"density": 0.5, **options}

    merging.build(tmp_path, world.base, terms, method=method, compute="float64", **options)

    seed = options.pop("seed", 0)
    parameters = merging.parameters_of(method, **options)
    vectors = [
        naive_sparse.drop(
            vector,
            merging.digest_of(term.folder),
            seed,
            term.parameters.get("density", 0.5),
            parameters,
        )
        for term, vector in zip(terms, world.vectors(terms), strict=True)
    ]
    weights = [term.weight for term in terms]
    expect_close(world, tmp_path, naive_sparse.combine(vectors, weights, parameters))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("breadcrumbs", {}),
        ("breadcrumbs", {"density": 0.3, "gamma": 0.25, "lambda": 0.5}),
        ("breadcrumbs", {"density": 0.001, "gamma": 0.99}),
        ("breadcrumbs", {"density": 0.25, "gamma": 0.0}),
        ("breadcrumbs_ties", {"density": 0.5, "gamma": 0.1, "tie": "majority"}),
        ("breadcrumbs_ties", {"density": 0.5, "gamma": 0.1, "election": "unweighted_total"}),
    ],
    ids=str,
)
def test_breadcrumbs_remove_both_ends(
    world: World, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    terms = world.terms(SIGNED, {"second": 0.01})

    merging.build(tmp_path, world.base, terms, method=method, compute="float64", **options)

    parameters = merging.parameters_of(method, **options)
    vectors = [
        naive_sparse.crumbs(
            vector,
            term.parameters.get("density", parameters["density"]),
            parameters["gamma"],
        )
        for term, vector in zip(terms, world.vectors(terms), strict=True)
    ]
    weights = [term.weight for term in terms]
    expect_close(world, tmp_path, naive_sparse.combine(vectors, weights, parameters))


@pytest.mark.parametrize("method", ["dare_linear", "della_linear", "breadcrumbs"])
def test_normalize_divides_by_the_weights_of_all_terms(
    world: World, tmp_path: Path, method: str
) -> None:
    terms = world.terms(POSITIVE)
    options = {"method": method, "normalize": True, "density": 0.5}

    merging.build(tmp_path / "a", world.base, terms, compute="float64", dtype="float32", **options)
    thirds = [merging.TermOf(term.folder, term.weight / 3, term.kind) for term in terms]
    options["normalize"] = False
    merging.build(tmp_path / "b", world.base, thirds, compute="float64", dtype="float32", **options)

    one, two = (merging.raw_tensors(tmp_path / name) for name in "ab")
    assert one == two


@pytest.mark.parametrize(
    ("density", "lambda_"), [(1.0, 1.0), (0.3, 0.5), (0.01, 1.0), (1e-6, 1.0), (0.999, 2.0)]
)
def test_sce_selects_calculates_and_erases(
    world: World, tmp_path: Path, density: float, lambda_: float
) -> None:
    terms = world.terms(dict.fromkeys(SIGNED, 1.0))

    merging.build(
        tmp_path,
        world.base,
        terms,
        method="sce",
        compute="float64",
        density=density,
        lambda_=lambda_,
    )

    delta = naive_sparse.sce(world.vectors(terms), density, lambda_)
    # Shares are no short numbers: where base and delta cancel, a float64 rounding is left.
    expect_close(world, tmp_path, delta, atol=1e-15)


@pytest.mark.parametrize(
    ("mask_lambda", "min_terms"), itertools.product((0.0, 0.4, 1.0, 3.0), (1, 2, 3))
)
def test_consensus_keeps_what_matters_to_enough_terms(
    world: World, tmp_path: Path, mask_lambda: float, min_terms: int
) -> None:
    terms = world.terms(SIGNED)
    options = {"mask_lambda": mask_lambda, "min_terms": min_terms, "lambda": 0.5}

    merging.build(tmp_path, world.base, terms, method="consensus", compute="float64", **options)

    weights = [term.weight for term in terms]
    delta = naive_sparse.consensus(world.vectors(terms), weights, mask_lambda, min_terms, 0.5)
    expect_close(world, tmp_path, delta)
