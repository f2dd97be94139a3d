"""Recipes set beside each other, and the barrier on a line, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import schemas
from registry import trials
from registry.request import output
from registry.schema import method_parameters
from tests import merging, tiny
from tests.merging import TermOf

DIGESTS = {"sql": "sha256:" + "2" * 64, "json": "sha256:" + "1" * 64, "notes": "sha256:" + "3" * 64}


def start_of(method: str, *names: str, **parameters: Any) -> dict[str, Any]:
    terms = [
        {
            "input": {"kind": "adapter", "name": name, "version": 1, "digest": DIGESTS[name]},
            "weight": 0.5,
            "parameters": {},
        }
        for name in names
    ]
    terms.sort(key=lambda one: one["input"]["digest"])
    return {
        "format_version": 1,
        "numerics": schemas.numerics(),
        "base": {"kind": "base", "name": "b", "digest": "sha256:" + "0" * 64},
        "recipe": {
            "method": method,
            "parameters": method_parameters(method, parameters),
            "terms": terms,
            "compute": "float32",
        },
        "output": output({}),
    }


def labels(found: list[dict[str, Any]]) -> list[str]:
    return [one["label"] for one in found]


def recipe_of(found: list[dict[str, Any]], label: str) -> dict[str, Any]:
    recipe: dict[str, Any] = next(one for one in found if one["label"] == label)["request"][
        "recipe"
    ]
    return recipe


def test_every_method_that_takes_so_many_terms_has_its_defaults_and_weights_of_one() -> None:
    found = trials.rank(start_of("ties", "sql", "json", density=0.7), trials.rankable())

    assert set(labels(found)) == set(schemas.methods()) - {"passthrough"}
    ties = recipe_of(found, "ties")
    assert ties["parameters"]["density"] == 0.2
    assert [term["weight"] for term in ties["terms"]] == [1.0, 1.0]
    assert "seed" in recipe_of(found, "dare_linear")
    assert "seed" not in ties

    three = trials.rank(start_of("ties", "sql", "json", "notes"), trials.rankable())
    assert {"slerp", "nuslerp"} == set(labels(found)) - set(labels(three))
    one = trials.rank(start_of("task_arithmetic", "sql"), trials.rankable())
    assert "model_stock" not in labels(one)
    assert "ties" in labels(one)


def test_the_steps_of_ties_lead_from_the_sum_to_the_whole() -> None:
    start = start_of("ties", "sql", "json", density=0.3, **{"lambda": 0.9})

    found = trials.ablation(start)

    assert labels(found) == [
        "sum",
        "trim",
        "trim, elect",
        "without adapter json@1",
        "without adapter sql@1",
    ]
    plain = recipe_of(found, "sum")
    assert (plain["method"], plain["parameters"]["lambda"]) == ("task_arithmetic", 0.9)
    trim = recipe_of(found, "trim")
    assert trim["method"] == "breadcrumbs"
    assert (trim["parameters"]["density"], trim["parameters"]["gamma"]) == (0.3, 0.0)
    elect = recipe_of(found, "trim, elect")
    assert elect == {
        **start["recipe"],
        "parameters": {**start["recipe"]["parameters"], "combine": "sum"},
    }
    assert [term["weight"] for term in plain["terms"]] == [0.5, 0.5]
    assert len(recipe_of(found, "without adapter sql@1")["terms"]) == 1


def test_what_drops_at_random_is_shown_without_rescaling_too() -> None:
    found = trials.ablation({**start_of("dare_linear", "sql", "json")})

    assert labels(found)[:2] == ["sum", "without rescaling"]
    assert recipe_of(found, "without rescaling")["parameters"]["rescale"] is False


def test_a_line_goes_from_the_first_term_of_the_spec_to_the_second() -> None:
    found = trials.line(start_of("ties", "sql", "json"), ["adapter sql@1", "adapter json@1"], 5)

    assert labels(found) == ["0", "0.25", "0.5", "0.75", "1"]
    quarter = recipe_of(found, "0.25")
    assert quarter["method"] == "linear"
    assert {one["input"]["name"]: one["weight"] for one in quarter["terms"]} == {
        "sql": 0.75,
        "json": 0.25,
    }


@pytest.mark.parametrize(
    ("losses", "is_logarithm", "height", "at", "is_one"),
    [
        # Ends 0 and 1: the way between them stands at 0.25, 0.5 and 0.75.
        ([0.0, 0.75, 0.5, 0.75, 1.0], False, 0.5, 0.25, False),
        ([0.0, 0.25, 0.5, 0.75, 1.0], False, 0.0, 0.0, True),
        ([0.2, 0.1, 0.0, 0.1, 0.2], False, 0.0, 0.0, True),
        ([0.1, 0.115, 0.1], False, 0.015, 0.5, True),
        # 2 % of a loss of 2 is 0.04.
        ([2.0, 2.03, 2.0], True, 0.03, 0.5, True),
        ([2.0, 2.05, 2.0], True, 0.05, 0.5, False),
    ],
)
def test_a_barrier_is_what_stands_above_the_way_between_the_ends(
    losses: list[float], is_logarithm: bool, height: float, at: float, is_one: bool
) -> None:
    found = trials.barrier("sql", losses, is_logarithm=is_logarithm)

    assert (found.height, found.at) == pytest.approx((height, at))
    assert found.is_one_basin is is_one


def test_the_sum_of_trimmed_terms_is_that_of_ties(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", seed=3)
    one = TermOf(tiny.tiny_adapter(tmp_path / "one", base=base, seed=1), weight=0.7)
    start = merging.request_of(base, [one], "ties", density=0.3, combine="sum")
    trim = next(row for row in trials.ablation(start) if row["label"] == "trim")["request"]

    # Of one term every sign is elected, so what differs can only be how it is trimmed.
    tensors = []
    for name, request in (("ties", start), ("trim", trim)):
        merging.build_request(tmp_path / name, request, merging.inputs_of(base, [one]))
        tensors.append(merging.raw_tensors(tmp_path / name))
    assert tensors[0] == tensors[1]
