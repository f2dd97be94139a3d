"""YAML text to data and places; what is more than data is refused, in bounded time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import documents
from registry.documents import Document, field_text, parse, quote
from registry.scalars import scalar

EXAMPLES = Path(__file__).parent / "examples" / "invalid" / "yaml"


def read(text: str) -> Document:
    document, problems = parse(text.encode(), "a.yaml")
    assert problems == []
    assert document is not None
    return document


def messages(text: str | bytes) -> list[str]:
    content = text if isinstance(text, bytes) else text.encode()
    document, problems = parse(content, "a.yaml")
    assert document is None
    return [problem.text() for problem in problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("TRUE", True),
        ("False", False),
        ("tRue", "tRue"),
        ("", None),
        ("~", None),
        ("Null", None),
        ("nUll", "nUll"),
        ("1", 1),
        ("-0", 0),
        ("+7", 7),
        ("017", 17),
        ("0o17", 15),
        ("0o18", "0o18"),
        ("0x1F", 31),
        ("-0x1F", "-0x1F"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("190:20:30", "190:20:30"),
        ("2026-01-01", "2026-01-01"),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.5e1", -5.0),
        (".", "."),
        ("e1", "e1"),
        ("+", "+"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("+.Inf", math.inf),
        ("inf", "inf"),
        ("nan", "nan"),
        ("1e999", math.inf),
        ("9" * 5000, math.inf),
        ("-" + "9" * 5000, -math.inf),
        ("0x" + "f" * 390, math.inf),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: Any) -> None:
    found = scalar(text)

    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(scalar(".nan"))  # type: ignore[arg-type]


def test_quoted_scalars_are_text() -> None:
    document = read("a: '1'\nb: \"true\"\nc: ''\nd: |\n  2\ne: >-\n  null\n")

    assert document.data == {"a": "1", "b": "true", "c": "", "d": "2\n", "e": "null"}


def test_one_and_one_point_nothing_stay_different() -> None:
    data = read("a: 1\nb: 1.0\n").data

    assert [type(value) for value in data.values()] == [int, float]


def test_every_value_and_key_has_its_place() -> None:
    document = read("kind: merge\nrecipe:\n  terms:\n    - {adapter: sql, weight: 017}\n    - x\n")

    assert document.data["recipe"]["terms"] == [{"adapter": "sql", "weight": 17}, "x"]
    assert document.place(("kind",)) == (1, 7)
    assert document.place(("recipe",)) == (3, 3)
    assert document.place(("recipe", "terms", 0, "weight")) == (4, 30)
    assert document.key_place(("recipe", "terms", 0, "weight")) == (4, 22)
    assert document.place(("recipe", "terms", 1)) == (5, 7)
    assert document.key_place(("recipe", "terms", 1)) == (5, 7)
    assert document.sources == {("recipe", "terms", 0, "weight"): "017"}


def test_a_field_that_is_absent_has_the_place_of_its_nearest_ancestor() -> None:
    document = read("kind: merge\nrecipe: {method: ties}\n")

    assert document.place(("recipe", "terms", 0, "weight")) == (2, 9)
    assert document.place(("nothing",)) == (1, 1)


def test_columns_count_characters_and_lines_end_as_editors_end_them() -> None:
    document = read("ä: 'größe'\r\nb: {ü: 1}\r\n")

    assert document.place(("b", "ü")) == (2, 8)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("recipe", "terms", 1, "weight"), "recipe.terms[1].weight"),
        ((0, "a"), "[0].a"),
        (("labels", "a b"), 'labels."a b"'),
        (("labels", ""), 'labels.""'),
        (("labels", "a\x1b"), 'labels."a\\u001b"'),
    ],
)
def test_a_path_is_written_as_people_write_it(path: documents.Path_, text: str) -> None:
    assert field_text(path) == text


def test_quoted_text_is_short_and_harmless_on_a_terminal() -> None:
    assert quote('a"b\n\x1b[31m') == '"a\\"b\\n\\u001b[31m"'
    assert quote("\u202egnp\x9b") == '"\\u202egnp\\u009b"'
    assert len(quote("x" * 1000)) == 62


def test_all_problems_of_a_file_are_told_at_once() -> None:
    found = messages("a: &x 1\nb: *x\nc: !t 2\na: 3\n<<: {}\n5: 6\n")

    assert [line.split(": hint")[0].splitlines()[0] for line in found] == [
        "a.yaml:1:4: a: expected no anchor, found &x",
        "a.yaml:2:4: b: expected no alias, found *x",
        'a.yaml:3:4: c: expected no tag, found "!t"',
        'a.yaml:4:1: a: expected every key once, found "a" again',
        "a.yaml:5:1: expected no merge key, found <<",
        "a.yaml:6:1: expected text as key, found 5",
    ]


def test_at_most_100_problems_of_a_file_are_told() -> None:
    assert len(messages("[" + "&a 1, " * 500 + "]")) == 100


def test_an_alias_as_key_is_refused() -> None:
    assert messages("*a : 1\nb: 2")[0].startswith("a.yaml:1:1: expected no alias, found *a\n")


def test_a_quoted_merge_key_is_text() -> None:
    assert read("'<<': 1\n").data == {"<<": 1}


def test_exactly_32_nested_collections_are_read() -> None:
    assert messages("[" * 33 + "]" * 33) == [
        "a.yaml:1:33: expected at most 32 nested collections, found more"
    ]
    assert read("[" * 32 + "]" * 32).data is not None


def test_exactly_256_kib_are_read() -> None:
    text = "a: b\n#".ljust(256 << 10, "x")

    assert read(text).data == {"a": "b"}
    (found,) = messages(text + "x")
    assert found.startswith("a.yaml: expected at most 256 KiB, found 262145 bytes\n")


def test_a_comma_in_a_list_is_no_decimal_comma() -> None:
    assert "hint: write" in messages("a: {b: x, 5}")[0]
    assert "decimal comma" in messages("a: {b: 1, 5}")[0]
    assert "decimal comma" not in messages("a: {5}")[0]
    assert "decimal comma" not in messages("b: 0\n5:\n")[0]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*bomb*.yaml")), ids=lambda p: p.stem)
def test_bombs_are_refused_at_once(path: Path) -> None:
    start = time.process_time()

    document, problems = parse(path.read_bytes(), path.name)

    assert document is None
    assert problems
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{" * 200_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: " * 60_000,
        "'" + "a" * 250_000,
        '"' + "\\x41" * 60_000,
        "a: |\n" + "\n" * 250_000,
        "&a " * 80_000,
        "!a " * 80_000,
        "*a " * 80_000,
        "%a\n" * 80_000,
        "---\n" * 60_000,
        "[" + "a," * 120_000,
        "{" + "a," * 120_000,
        "\n".join(f"k{number}: {{<<: *a}}" for number in range(10_000)),
        "9" * 250_000,
        "1." + "9" * 250_000,
        "0x" + "f" * 250_000,
        "a" * 250_000 + ": 1",
        " " * 250_000,
        "#" * 250_000,
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_nothing_takes_long(text: str) -> None:
    start = time.process_time()

    parse(text.encode(), "a.yaml")

    assert time.process_time() - start < 10


PIECES = ["a", "b: ", "- ", "[", "]", "{", "}", ",", ":", "?", "&a ", "*a", "!t ", "!!int ", "<<: "]
PIECES += ["\n", "  ", "\t", "'", '"', "|", ">", "#", "%YAML 1.2\n", "---\n", "...\n", "\\", "1e5"]
PIECES += ["~", ".nan", "0x", "-0,5", "\u2028", "\ufeff", "\x00", "ü", "\U0001f600", "@", "`"]


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_text_gives_data_or_problems(text: str) -> None:
    document, problems = parse(text.encode(), "a.yaml")

    assert (document is None) == bool(problems)
    assert all(problem.text().startswith("a.yaml") for problem in problems)
    assert all(problem.text().replace("\n", "").isprintable() for problem in problems)


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=400))
def test_any_bytes_give_data_or_problems(content: bytes) -> None:
    document, problems = parse(content, "a.yaml")

    assert (document is None) == bool(problems)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner),
    max_leaves=20,
)


@settings(max_examples=200, deadline=2000)
@given(JSON)
def test_json_is_yaml_with_the_same_data(data: Any) -> None:
    text = json.dumps(data, ensure_ascii=False)  # YAML has no surrogate pairs

    document, problems = parse(text.encode(), "a.json")

    assert problems == []
    assert document is not None
    assert document.data == data


def test_importing_the_module_imports_no_yaml() -> None:
    code = "import sys, registry.documents; sys.exit('yaml' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
