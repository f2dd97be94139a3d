"""Documents against their schemas: every example with its whole message, and the helpers."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schemas
from registry import cures, documents, schema
from registry.documents import Document
from registry.errors import Problem

EXAMPLES = Path(__file__).parent / "examples"
VALID = sorted((EXAMPLES / "valid").glob("*/*.yaml"))
INVALID = sorted((EXAMPLES / "invalid").glob("*/*.yaml"))


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def problems_of(path: Path, kind: str) -> list[Problem]:
    document, problems = documents.parse(path.read_bytes(), name_of(path))
    return problems if document is None else schema.validate(document, kind)


def document_of(data: Any) -> Document:
    document, problems = documents.parse(json.dumps(data, ensure_ascii=False).encode(), "a.yaml")
    assert document is not None, problems
    return document


@pytest.mark.parametrize("path", VALID, ids=name_of)
def test_valid_examples_are_accepted(path: Path) -> None:
    document, problems = documents.parse(path.read_bytes(), path.name)

    assert problems == []
    assert document is not None
    assert schema.kind_of(document) == path.parent.name
    assert schema.validate(document, path.parent.name) == []


@pytest.mark.parametrize("path", INVALID, ids=name_of)
def test_invalid_examples_are_refused_with_these_words(path: Path) -> None:
    kind = path.parent.name if path.parent.name in schemas.KINDS else "merge"

    text = "".join(problem.text() + "\n" for problem in problems_of(path, kind))

    assert text == path.with_suffix(".txt").read_text("utf-8")
    assert text


def test_examples_cover_every_kind_and_each_has_its_message() -> None:
    assert {path.parent.name for path in VALID} == set(schemas.KINDS)
    assert {path.parent.name for path in INVALID} == {*schemas.KINDS, "yaml"}
    messages = {path.with_suffix("") for path in (EXAMPLES / "invalid").glob("*/*.txt")}
    assert messages == {path.with_suffix("") for path in INVALID}


KINDS = "registry, base, adapter, checkpoint, merge or suite"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, f"expected {KINDS}, found no such field"),
        ({"kind": 3}, f"expected {KINDS}, found 3"),
        ({"kind": None}, f"expected {KINDS}, found nothing"),
        ({"kind": "lora"}, f'expected {KINDS}, found "lora"'),
        ([], "expected a mapping, found an empty list"),
        (None, "expected a mapping, found nothing"),
        (True, "expected a mapping, found true"),
    ],
)
def test_a_missing_or_unknown_kind_is_explained(data: Any, message: str) -> None:
    found = schema.kind_of(document_of(data))

    assert isinstance(found, Problem)
    assert found.message == message


def test_a_misspelt_kind_gets_a_hint() -> None:
    found = schema.kind_of(document_of({"kind": "adaptor"}))

    assert isinstance(found, Problem)
    assert found.hint == "did you mean adapter"


def test_method_parameters_are_written_out_in_the_order_of_the_schema() -> None:
    assert schema.method_parameters("ties", {"density": 0.3, "tie": "zero"}) == {
        "density": 0.3,
        "scope": "tensor",
        "election": "total",
        "tie": "zero",
        "min_agreement": 0.0,
        "combine": "mean",
        "lambda": 1.0,
    }
    assert schema.method_parameters("linear", {}) == {}


@pytest.mark.parametrize("method", schemas.methods())
def test_every_parameter_has_a_default(method: str) -> None:
    assert None not in schema.method_parameters(method, {}).values()


def test_defaults_are_those_of_the_schema() -> None:
    assert schema.default_of("merge", ("output", "max_shard_size")) == "5GB"
    assert schema.default_of("merge", ("output", "dtype")) is None
    assert schema.default_of("merge", ("recipe", "seed")) == 0
    assert schema.default_of("registry", ("mlflow", "experiment")) == "merge-registry"


def test_importing_the_module_imports_no_jsonschema() -> None:
    code = "import sys, registry.schema; sys.exit(bool({'jsonschema', 'yaml'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_percentage_is_only_seen_in_shares() -> None:
    limits = {"minimum": 1}

    assert cures.wrong_value("minimum", -3, limits) == (
        "expected a number of at least 1, found -3",
        "",
    )
    assert cures.wrong_value("exclusiveMinimum", 0, {"exclusiveMinimum": 0})[0] == (
        "expected a number above 0, found 0"
    )
    assert cures.wrong_value("maximum", 9, {"maximum": 1, "x": 0})[0] == (
        "expected a number of at most 1, found 9"
    )
    assert cures.wrong_value("exclusiveMaximum", 1, {"exclusiveMaximum": 1})[0] == (
        "expected a number below 1, found 1"
    )


def test_a_keyword_without_words_of_its_own_is_named() -> None:
    message, _ = cures.wrong_value("multipleOf", 3, {"multipleOf": 2})

    assert message == "expected a value that satisfies multipleOf, found 3"


@pytest.mark.parametrize(
    ("value", "types", "hint"),
    [
        ("1_000", "number", "write 1000, without quotes"),
        ("abc", "number", ""),
        ("", "number", ""),
        ({}, "number", ""),
        ("-2,5", "number", "write -2.5"),
        ("12.5 %", "number", "write 0.125"),
        (" 7 ", "integer", "write 7, without quotes"),
        (2.0, "integer", "write 2"),
        (2.5, "integer", ""),
        ("on", "boolean", "write true"),
        ("Off", "boolean", "write false"),
        ("maybe", "boolean", ""),
        (None, "boolean", "write a value, or remove the line"),
        ("a", "array", "write [a]"),
        (5, "array", ""),
        ("x", "object", ""),
        (True, "string", 'write "true", in quotes'),
    ],
)
def test_a_wrong_type_is_mended(value: Any, types: str, hint: str) -> None:
    assert cures.wrong_value("type", value, {"type": types})[1] == hint


@pytest.mark.parametrize(
    "text",
    [
        "kind: merge\nrecipe: {terms: [" + "a," * 40_000 + "]}",
        "kind: merge\n" + "\n".join(f"k{number}: 1" for number in range(12_000)),
        "kind: merge\nlabels: {" + ", ".join(f"k{n}: 1" for n in range(12_000)) + "}",
        "kind: merge\nname: " + "a" * 200_000,
        "kind: merge\nrecipe: {method: " + "ties" * 50_000 + "}",
        "kind: merge\n" + "a" * 1000 + ": 1",
        "kind: merge\nrecipe: {terms: [{weight: '" + "1" * 200_000 + "'}]}",
    ],
    ids=lambda text: text[12:24],
)
def test_a_hostile_document_is_refused_in_bounded_time_and_words(text: str) -> None:
    document, _ = documents.parse(text.encode(), "a.yaml")
    assert document is not None
    start = time.process_time()

    problems = schema.validate(document, "merge")

    assert time.process_time() - start < 5
    assert 0 < len(problems) <= documents.MAX_PROBLEMS
    assert all(len(problem.text()) < 1000 for problem in problems)


def _mutations(data: Any) -> Iterator[tuple[documents.Path_, Any]]:
    """Every path of data."""
    stack: list[tuple[documents.Path_, Any]] = [((), data)]
    while stack:
        path, value = stack.pop()
        yield path, value
        if isinstance(value, dict):
            stack += [((*path, key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            stack += [((*path, index), inner) for index, inner in enumerate(value)]


ODD: list[Any] = [None, True, -1, 1.5, 10**17, "", "x y", [], ["a"], {}, {"a": 1}, [[]], "1", "0,5"]


def whole(kind: str) -> Any:
    path = EXAMPLES / "valid" / kind / "all-fields.yaml"
    document, problems = documents.parse(path.read_bytes(), path.name)
    assert document is not None, problems
    return document.data


WHOLE = {kind: whole(kind) for kind in ("registry", "base", "adapter", "merge", "suite")}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_a_document_gives_problems_or_none_but_never_raises(
    data: st.DataObject,
) -> None:
    kind = data.draw(st.sampled_from(sorted(WHOLE)))
    changed = copy.deepcopy(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        paths = [path for path, _ in _mutations(changed) if path]
        path = data.draw(st.sampled_from(paths)) if paths else ()
        if not path:
            break
        owner = changed
        for part in path[:-1]:
            owner = owner[part]
        action = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            del owner[path[-1]]
        elif action == "add" and isinstance(owner, dict):
            owner[data.draw(st.sampled_from(["new", "wieght", "", "kind", "a b"]))] = 1
        else:
            # A copy: the next change may reach into what this one put there.
            owner[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(ODD)))

    problems = schema.validate(document_of(changed), kind)

    fields = [problem.field for problem in problems]
    assert len(set(fields)) == len(fields)
    assert all("expected" in problem.message and problem.line == 1 for problem in problems)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.sampled_from([*ODD[:7], "merge", 1e300]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["kind", "recipe", "terms", "weight", "x"]), inner)
        ),
        max_leaves=10,
    ),
    st.sampled_from(schemas.KINDS),
)
def test_any_data_gives_problems(data: Any, kind: str) -> None:
    assert schema.validate(document_of(data), kind)
