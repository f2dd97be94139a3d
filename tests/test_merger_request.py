"""Requests: what is accepted, the normal order of terms, and the field named by each refusal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import schemas
from merger import request
from merger.errors import InputError
from schemas.canonical import digest
from tests import merging


def operand(kind: str, name: str, letter: str) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": kind, "name": name, "digest": "sha256:" + letter * 64}
    return found if kind in ("base", "merge") else found | {"version": 1}


def plain(method: str = "ties") -> dict[str, Any]:
    return {
        "format_version": 1,
        "numerics": schemas.numerics(),
        "base": operand("base", "tiny", "b"),
        "recipe": {
            "method": method,
            "parameters": merging.parameters_of(method),
            "terms": [
                {"input": operand("adapter", "sql", "1"), "weight": 1.0, "parameters": {}},
                {"input": operand("merge", "mix", "2"), "weight": -0.5, "parameters": {}},
            ],
            "compute": "float32",
        },
        "output": {"form": "model", "dtype": "base", "max_shard_size": 5_000_000_000},
    }


def test_a_complete_request_becomes_frozen_values() -> None:
    found = request.parse(plain())

    assert found.base.label == "base tiny"
    assert [term.label for term in found.recipe.terms] == ["adapter sql@1", "merge mix"]
    assert found.recipe.terms[0].field == "recipe.terms[adapter sql@1]"
    assert found.data == plain()


def test_terms_are_put_in_the_order_of_the_key() -> None:
    swapped = plain()
    swapped["recipe"]["terms"].reverse()

    found = request.parse(swapped)

    assert digest(found.data) == digest(plain())
    assert [term.label for term in found.recipe.terms] == ["adapter sql@1", "merge mix"]


def test_numbers_and_schedules_are_accepted_where_the_schema_has_them() -> None:
    data = plain()
    schedule = {"layers": [0.2, 1], "embeddings": 0.5, "rules": [{"match": "*", "value": 1}]}
    data["recipe"]["parameters"]["density"] = schedule
    data["recipe"]["terms"][0]["weight"] = {"layers": [-1, 2], "head": 0}
    data["recipe"]["terms"][0]["parameters"] = {"density": 0.5}

    assert request.parse(data).recipe.terms[0].parameters == {"density": 0.5}


Change = Callable[[dict[str, Any]], object]


def put(*path: Any) -> Change:
    *way, key, value = path

    def change(data: Any) -> None:
        for step in way:
            data = data[step]
        data[key] = value

    return change


PARAMETERS = ("recipe", "parameters")
TERM = ("recipe", "terms", 0)
REFUSED: list[tuple[Change, str, str]] = [
    (put("numerics", 0), "numerics", "this merger computes numerics 2, found 0"),
    (put("format_version", 2), "format_version", "expected 1, found 2"),
    (put("host", "here"), "host", "this field is not understood"),
    (lambda data: data.pop("output"), "output", "expected this field, found none"),
    (put("base", 3), "base", "expected a map"),
    (put("base", "kind", "adapter"), "base.kind", "expected one of base, found 'adapter'"),
    (put("base", "version", 1), "base.version", "expected a whole number from 1 for an"),
    (put("base", "name", "../x"), "base.name", "expected a catalog name, found '../x'"),
    (put("base", "digest", "sha256:0"), "base.digest", "expected sha256:<hex>, found 'sha256:0'"),
    (put("recipe", "method", "magic"), "recipe.method", "this merger has no method 'magic'"),
    (put("recipe", "compute", "float16"), "recipe.compute", "expected float32 or float64"),
    (put("recipe", "seed", 1), "recipe.seed", "expected a seed exactly where"),
    (put("recipe", "terms", []), "recipe.terms", "expected a list of at least 1 terms"),
    (put("recipe", "terms", {}), "recipe.terms", "expected a list of at least 1 terms"),
    (
        lambda data: data["recipe"]["parameters"].pop("density"),
        "recipe.parameters.density",
        "expected this field, found none",
    ),
    (put(*PARAMETERS, "normalize", False), "recipe.parameters.normalize", "not understood"),
    (put(*PARAMETERS, "density", 0), "recipe.parameters.density", "exclusiveMinimum 0"),
    (put(*PARAMETERS, "density", 1.5), "recipe.parameters.density", "maximum 1, found 1.5"),
    (put(*PARAMETERS, "density", "0.5"), "recipe.parameters.density", "expected a finite number"),
    (put(*PARAMETERS, "lambda", float("nan")), "recipe.parameters.lambda", "a finite number"),
    (put(*PARAMETERS, "lambda", True), "recipe.parameters.lambda", "expected a finite number"),
    (put(*PARAMETERS, "tie", "random"), "recipe.parameters.tie", "expected one of positive, "),
    (
        put(*PARAMETERS, "min_agreement", {"layers": [0.5, 1.1]}),
        "recipe.parameters.min_agreement.layers[1]",
        "maximum 1, found 1.1",
    ),
    (put(*PARAMETERS, "lambda", {"layers": []}), "recipe.parameters.lambda.layers", "not empty"),
    (
        put(*PARAMETERS, "lambda", {"layers": [1], "tail": 1}),
        "recipe.parameters.lambda.tail",
        "not understood",
    ),
    (
        put(*PARAMETERS, "lambda", {"layers": [1], "rules": {}}),
        "recipe.parameters.lambda.rules",
        "expected a list of rules",
    ),
    (
        put(*PARAMETERS, "lambda", {"layers": [1], "rules": [{"match": 1, "value": 1}]}),
        "recipe.parameters.lambda.rules[0].match",
        "expected a pattern",
    ),
    (put(*TERM, "weight", None), "recipe.terms[adapter sql@1].weight", "expected a finite number"),
    (put(*TERM, "parameters", []), "recipe.terms[adapter sql@1].parameters", "expected a map"),
    (
        put(*TERM, "parameters", {"lambda": 1.0}),
        "recipe.terms[adapter sql@1].parameters.lambda",
        "expected a parameter that a term may override",
    ),
    (
        put(*TERM, "parameters", {"density": 0.0}),
        "recipe.terms[adapter sql@1].parameters.density",
        "exclusiveMinimum 0",
    ),
    (put(*TERM, "input", "version", None), "recipe.terms[0].input.version", "a whole number"),
    (put(*TERM, "input", "version", True), "recipe.terms[0].input.version", "a whole number"),
    (put(*TERM, "input", "kind", "base"), "recipe.terms[0].input.kind", "expected one of adapter"),
    (put("output", "form", "folder"), "output.form", "expected model or adapter, found 'folder'"),
    (put("output", "dtype", "float64"), "output.dtype", "expected one of base, float32"),
    (put("output", "max_shard_size", "5GB"), "output.max_shard_size", "a number of bytes"),
]


@pytest.mark.parametrize(("change", "field", "why"), REFUSED, ids=[row[1] for row in REFUSED])
def test_anything_else_is_refused_by_its_field(change: Change, field: str, why: str) -> None:
    data = copy.deepcopy(plain())
    change(data)

    with pytest.raises(InputError) as caught:
        request.parse(data)

    assert caught.value.field == field
    assert why in caught.value.why


def test_a_term_may_appear_once() -> None:
    data = plain()
    data["recipe"]["terms"].append(data["recipe"]["terms"][0] | {"weight": 2.0})

    with pytest.raises(InputError, match="every term once"):
        request.parse(data)


def test_a_schedule_of_density_needs_the_scope_of_a_tensor() -> None:
    data = plain()
    data["recipe"]["parameters"]["scope"] = "model"
    data["recipe"]["terms"][0]["parameters"] = {"density": {"layers": [0.5]}}

    with pytest.raises(InputError) as caught:
        request.parse(data)

    assert caught.value.field == "recipe.terms[adapter sql@1].parameters.density"


def test_every_method_of_the_schema_is_bound() -> None:
    from merger.methods import METHODS

    assert set(METHODS) == set(schemas.methods())


def test_a_request_that_is_no_map_is_refused() -> None:
    with pytest.raises(InputError, match="expected a map"):
        request.parse([])
