"""Whole builds against `tests/reference/naive.py`, for every option of every method."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import merging, tiny
from tests.merging import TermOf
from tests.reference import naive


class World:
    """A tiny base with two adapters that overlap and a checkpoint; numbers exact in float32."""

    def __init__(self, folder: Path) -> None:
        self.base = tiny.tiny_base(folder / "base", exact=True, dtype="float32")
        first = tiny.tiny_adapter(folder / "first", base=self.base, seed=1, exact=True)
        targets = ("v_proj", "down_proj")
        second = tiny.tiny_adapter(
            folder / "second", base=self.base, seed=2, targets=targets, exact=True
        )
        third = tiny.tiny_checkpoint(
            folder / "third", base=self.base, seed=3, dtype="float32", exact=True
        )
        self.folders = {"first": first, "second": second, "third": third}

    def terms(self, weights: dict[str, float], densities: dict[str, float] | None = None) -> list:
        """Return terms in the order of the request: by digest."""
        found = [
            TermOf(
                self.folders[name],
                weight,
                kind="checkpoint" if name == "third" else "adapter",
                parameters={"density": densities[name]} if name in (densities or {}) else {},
            )
            for name, weight in weights.items()
        ]
        return sorted(found, key=lambda term: merging.digest_of(term.folder))

    def vectors(self, terms: list[TermOf]) -> list[dict[str, Any]]:
        base = tiny.read_tensors(self.base)
        found = []
        for term in terms:
            tensors = tiny.read_tensors(term.folder)
            if term.kind == "checkpoint":
                found.append(naive.task_vector_of_model(tensors, base))
            else:
                config = json.loads((term.folder / "adapter_config.json").read_text())
                scale = config["lora_alpha"] / config["r"]
                found.append(naive.task_vector_of_adapter(tensors, scale))
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("naive"))


def expect(world: World, output: Path, delta: dict[str, Any]) -> None:
    base, built = tiny.read_tensors(world.base), tiny.read_tensors(output)
    assert built.keys() == base.keys()
    for name, array in base.items():
        expected = array.astype(np.float64) + delta.get(name, 0.0)
        # float64 inside: what is left is one rounding to float32.
        np.testing.assert_array_equal(built[name], expected.astype(np.float32), err_msg=name)


def test_linear_is_the_weighted_average(world: World, tmp_path: Path) -> None:
    terms = world.terms({"first": 1.0, "second": 2.0, "third": 0.5})

    merging.build(tmp_path, world.base, terms, method="linear", compute="float64")

    weights = [term.weight for term in terms]
    expect_close(world, tmp_path, naive.linear(world.vectors(terms), weights))


def test_task_arithmetic_is_the_weighted_sum(world: World, tmp_path: Path) -> None:
    terms = world.terms({"first": 1.0, "second": -0.5, "third": 2.0})

    merging.build(tmp_path, world.base, terms, compute="float64", lambda_=0.75)

    weights = [term.weight for term in terms]
    expect(world, tmp_path, naive.task_arithmetic(world.vectors(terms), weights, 0.75))


def expect_close(world: World, output: Path, delta: dict[str, Any], atol: float = 0.0) -> None:
    base, built = tiny.read_tensors(world.base), tiny.read_tensors(output)
    for name, array in base.items():
        expected = (array.astype(np.float64) + delta.get(name, 0.0)).astype(np.float32)
        np.testing.assert_allclose(built[name], expected, rtol=2**-23, atol=atol, err_msg=name)


OPTIONS = [
    {"scope": scope, "election": election, "tie": tie, "combine": combine, "min_agreement": share}
    for scope, election, tie, combine, share in itertools.product(
        ("tensor", "model"),
        ("total", "frequency"),
        ("positive", "largest", "majority", "zero"),
        ("mean", "sum", "max"),
        (0.0, 2 / 3),
    )
]


SIGNED = {"first": 1.0, "second": -1.0, "third": 2.0}
POSITIVE = {"first": 1.0, "second": 0.0, "third": 2.0}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values()))[:40])
def test_ties_is_trim_elect_merge(world: World, tmp_path: Path, options: dict[str, Any]) -> None:
    expect_ties(world, tmp_path, SIGNED, options)


UNWEIGHTED = [
    {"election": election, "tie": tie, "combine": combine, "min_agreement": share}
    for election, tie, combine, share in itertools.product(
        ("unweighted_total", "unweighted_frequency"),
        ("positive", "largest", "majority", "zero"),
        ("mean", "sum", "max"),
        (0.0, 2 / 3),
    )
]


@pytest.mark.parametrize("options", UNWEIGHTED, ids=lambda o: "-".join(map(str, o.values()))[:40])
def test_signs_can_be_elected_before_the_weights(
    world: World, tmp_path: Path, options: dict[str, Any]
) -> None:
    expect_ties(world, tmp_path, SIGNED, options)


ELECTIONS = ("total", "frequency", "unweighted_total", "unweighted_frequency")


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("election", ELECTIONS)
def test_a_weighted_mean_divides_by_the_agreeing_weights(
    world: World, tmp_path: Path, election: str, scope: str
) -> None:
    options = {"election": election, "scope": scope, "combine": "weighted_mean", "tie": "zero"}
    expect_ties(world, tmp_path, POSITIVE, options)


def expect_ties(
    world: World, output: Path, weights: dict[str, float], options: dict[str, Any]
) -> None:
    # Powers of two: values collide often, so ties of magnitude and of sign both happen.
    terms = world.terms(weights, {"third": 0.5})

    built = merging.build(
        output, world.base, terms, method="ties", compute="float64", density=0.3, **options
    )

    parameters = merging.parameters_of("ties", density=0.3, **options)
    densities = [term.parameters.get("density", 0.3) for term in terms]
    found = [term.weight for term in terms]
    delta = naive.ties(world.vectors(terms), found, densities, parameters)
    expect_close(world, output, delta)
    nonzero = sum(int(np.count_nonzero(array)) for array in delta.values())
    elements = sum(array.size for array in delta.values())
    assert built.statistics["nonzero"] == pytest.approx(nonzero / elements, rel=1e-6)


def test_a_scope_larger_than_memory_gives_the_same_cut(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = world.terms({"first": 1.0, "second": -1.0, "third": 2.0})
    options = {"method": "ties", "scope": "model", "density": 0.3}
    whole = merging.build(tmp_path / "whole", world.base, terms, **options)
    from merger import selection

    monkeypatch.setattr(selection.find_cut, "__kwdefaults__", {"gather": 64, "sample": 16})
    pieces = merging.build(tmp_path / "pieces", world.base, terms, **options)

    assert pieces.artifact_digest == whole.artifact_digest
