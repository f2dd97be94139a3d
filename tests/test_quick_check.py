"""The quick judge says of every document what jsonschema says of it."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import schemas
from registry import documents, quick_check, record, schema
from tests.test_record import WHOLE

EXAMPLES = Path(__file__).parent / "examples"
ODD = [
    None, True, False, 0, 1, -1, 1.0, 0.5, 2.0, 10**20, float("nan"), float("inf"), "", "x", "ties",
    "base", "5GB", "a" * 70, [], [1], {}, {"layers": [0.5, 1]}, {"layers": []}, {"layers": [-3]},
    {"adapter": "a", "version": 1}, {"merge": "m", "version": 1}, [{"merge": "m"}, {"merge": "m"}],
    "passthrough", "slerp", {"name": "x"}, {"layers": [1], "rules": [{"match": "*", "value": 9}]},
]  # fmt: skip


def is_valid(kind: str, data: Any) -> bool:
    return next(schema._validator(kind).iter_errors(data), None) is None


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            found += places(value, (*path, key))
    return found


def changed(data: Any, generator: random.Random) -> Any:
    """Return data with one value replaced, removed or added somewhere."""
    data = copy.deepcopy(data)
    path = generator.choice(places(data))
    parent = data
    for part in path[:-1]:
        parent = parent[part]
    match generator.randrange(4):
        case 0:
            del parent[path[-1]]
        case 1 if isinstance(parent, dict):
            key = generator.choice(["extra", "version", "merge", "density", "weight", "layers"])
            parent[key] = copy.deepcopy(generator.choice(ODD))
        case 2 if isinstance(parent, list):
            parent.append(copy.deepcopy(parent[0]))
        case _:
            parent[path[-1]] = copy.deepcopy(generator.choice(ODD))
    return data


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_both_judge_alike_whatever_a_document_says(kind: str) -> None:
    check = schema._check(kind)
    assert check is not None
    generator = random.Random(kind)
    files = sorted(EXAMPLES.glob(f"*/{kind}/*.yaml"))
    parsed = [documents.parse(file.read_bytes(), file.name)[0] for file in files]
    examples = [one.data for one in parsed if one and isinstance(one.data, dict) and one.data]
    valid = [data for data in examples if is_valid(kind, data)]
    told = []

    for data in examples:
        assert check(data) is is_valid(kind, data)
    for _ in range(400):
        data = generator.choice(generator.choice([examples, valid]))
        for _ in range(generator.randrange(1, 3)):
            data = changed(data, generator) if places(data) else data
        told.append(is_valid(kind, data))
        assert check(data) is told[-1], data

    assert 5 < sum(told) < 395  # or the comparison says little


def test_both_judge_alike_whatever_a_record_says() -> None:
    check = schema._check("build-record")
    assert check is not None
    generator = random.Random("build-record")
    example = json.loads(record.encode(WHOLE))
    told = [check(example)]

    for _ in range(600):
        data = changed(example, generator)
        told.append(is_valid("build-record", data))
        assert check(data) is told[-1], data

    assert told[0]
    assert 5 < sum(told) < 595


@pytest.mark.parametrize("data", [None, True, 1, "text", [], [{}]])
def test_what_is_no_mapping_is_no_document(data: Any) -> None:
    check = schema._check("merge")
    assert check is not None
    assert check(data) is is_valid("merge", data) is False


@pytest.mark.parametrize(
    "unknown",
    [
        {"uniqueItems": True},
        {"const": 1.5},
        {"enum": ["a", [1]]},
        {"$ref": "other.json"},
        {"properties": {"a": {"format": "date"}}},
        {"patternProperties": {}, "additionalProperties": False},
    ],
)
def test_a_schema_that_says_something_else_has_no_quick_judge(unknown: dict[str, Any]) -> None:
    assert quick_check.compiled(unknown) is None


def test_a_part_may_hold_itself() -> None:
    inner = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    check = quick_check.compiled({"$ref": "#/$defs/node", "$defs": {"node": inner}})

    assert check is not None
    assert check({"next": {"next": {}}})
    assert not check({"next": {"next": 1}})


@pytest.mark.parametrize("schema_", [{"const": True}, {"const": 1}, {"enum": ["a", 2, None, 1]}])
@pytest.mark.parametrize("value", [True, False, 1, 1.0, 1.5, 2, None, "a", "1", [1]])
def test_true_is_not_one_and_one_is_a_number(schema_: dict[str, Any], value: Any) -> None:
    check = quick_check.compiled(schema_)
    assert check is not None
    assert check(value) is Draft202012Validator(schema_).is_valid(value)
