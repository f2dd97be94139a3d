"""Metrics against answers made by hand; no model."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from merger.evaluate import json_match, metrics, sql_execution, suite
from merger.evaluate.errors import EvaluationError

SCRIPT = """
CREATE TABLE employees(name TEXT, age INTEGER, salary REAL);
INSERT INTO employees VALUES ('Ann', 31, 10.1), ('Bob', 28, 10.2), ('Cy;d', 45, 10.4);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "employees.sql").write_text(SCRIPT)
    with sqlite3.connect(tmp_path / "employees.sqlite") as connection:
        connection.executescript(SCRIPT)
    return tmp_path


def task(folder: Path, metric: str, *expected: Any, **options: Any) -> suite.Task:
    lines = [
        {"id": f"p{number}", "prompt": "?"} | ({} if value is ... else {"expected": value})
        for number, value in enumerate(expected)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read(folder, metric=metric, options=options)


def read(folder: Path, **changes: Any) -> suite.Task:
    data = {
        "name": "skill", "metric": "contains", "data": "data.jsonl", "max_new_tokens": 8,
        "system": None, "options": {},
    }  # fmt: skip
    return suite.read({"name": "office", "tasks": [data | changes]}, folder)[0]


def score(folder: Path, metric: str, expected: Any, answer: str, **options: Any) -> float:
    return metrics.prepare(task(folder, metric, expected, **options))([answer])[0]


@pytest.mark.parametrize(
    ("metric", "expected", "answer", "wanted"),
    [
        ("exact_match", "Paris", " Paris\n", 1),
        ("exact_match", " Paris ", "Paris", 1),
        ("exact_match", "Paris", "paris", 0),
        ("exact_match", "Paris", "Paris.", 0),
        ("contains", "Paris", "It is PARIS.", 1),
        ("contains", "STRASSE", "straße 5", 1),
        ("contains", "Paris", "Rome", 0),
        ("json_match", '{"a": 1, "b": [2]}', 'Sure, 3 keys:\n```json\n{"b":[2.0],"a":1}\n```', 1),
        ("json_match", {"a": 1}, '{"a": 1} {"a": 2}', 1),
        ("json_match", {"a": 1}, '{"a": 2} {"a": 1}', 0),
        ("json_match", {"a": 1}, '{"a": true}', 0),
        ("json_match", {"a": 1}, '{"a": 1, "b": 2}', 0),
        ("json_match", {"a": 1}, "no JSON here {", 0),
        ("json_match", {"a": None}, '{"a": NaN}', 0),
        ("json_match", [1, 2], "[2, 1]", 0),
        ("json_match", [1, 2], "{ [1, 2]", 1),
        ("json_match", "7", "The answer: 7", 1),
        ("json_match", 7, "seven", 0),
        ("json_match", None, "null", 1),
        ("json_match", True, "1", 0),
        ("json_match", '"x"', 'It is "x".', 1),
        ("json_match", [1], "[" * 5000, 0),
    ],
)
def test_text_and_json_answers(
    folder: Path, metric: str, expected: Any, answer: str, wanted: int
) -> None:
    assert score(folder, metric, expected, answer) == wanted


@pytest.mark.parametrize(
    ("expected", "answer", "wanted"),
    [
        ("SELECT name FROM employees", "select NAME from employees order by age desc", 1),
        ("SELECT name FROM employees ORDER BY age", "SELECT name FROM employees ORDER BY age", 1),
        ("SELECT name FROM employees ORDER BY age", "SELECT name FROM employees ORDER BY -age", 0),
        (
            "SELECT name FROM (SELECT * FROM employees ORDER BY age)",
            "SELECT name FROM employees ORDER BY name",
            1,
        ),
        ("SELECT count(*) FROM employees", "```sql\nSELECT 3;\n```\nThat is it; done.", 1),
        ("SELECT count(*) FROM employees", "Here:\n```\nSELECT 3", 1),
        ("SELECT count(*) FROM employees", "```SELECT 3```", 1),
        ("SELECT count(*) FROM employees", "```sql SELECT 3```", 1),
        ("SELECT count(*) FROM employees", "```\nSELECT\n3\n```", 1),
        ("SELECT count(*) FROM employees", "```SELECT\n3\n```", 1),
        ("SELECT count(*) FROM employees;", "SELECT 3; DROP TABLE employees", 1),
        ("SELECT 1 WHERE 'Cy;d' IN (SELECT name FROM employees)", "SELECT 1 WHERE ';' = ';'; x", 1),
        ("SELECT count(*) FROM employees", "-- how many\nSELECT 3", 1),
        ("SELECT count(*) FROM employees", "/* a */ WITH t AS (SELECT 3 AS n) SELECT n FROM t", 1),
        ("SELECT avg(salary) FROM employees", "SELECT sum(salary) / 3 FROM employees", 1),
        ("SELECT age FROM employees", "SELECT age FROM employees LIMIT 2", 0),
        ("SELECT age FROM employees", "SELECT age FROM employees UNION ALL SELECT 28", 0),
        ("SELECT name, age FROM employees", "SELECT age, name FROM employees", 0),
        ("SELECT 1", "DELETE FROM employees", 0),
        ("SELECT 1", "INSERT INTO employees VALUES ('D', 1, 1) RETURNING 1", 0),
        ("SELECT 1", "WITH t AS (SELECT 1) DELETE FROM employees RETURNING 1", 0),
        ("SELECT 1", "PRAGMA user_version = 7", 0),
        ("SELECT 1", "ATTACH DATABASE '/tmp/x.db' AS x", 0),
        ("SELECT 1", "SELECT load_extension('x')", 0),
        ("SELECT 1", "SELECT 1 FROM pragma_table_info('employees') LIMIT 1", 0),
        ("SELECT 1", "EXPLAIN SELECT 1", 0),
        ("SELECT 1", "I cannot do that.", 0),
        ("SELECT 1", "", 0),
        ("SELECT 1", "SELECT 'unclosed", 0),
        ("SELECT 1", "SELECT 1\0", 0),
        ("SELECT 1", "SELECT '\ud800'", 0),
        ("SELECT 1", "SELECT length(zeroblob(2000000000))", 0),
        ("SELECT 1", "SELECT 1, 2", 0),
    ],
)
@pytest.mark.parametrize("database", ["employees.sql", "employees.sqlite"])
def test_sql_answers(folder: Path, database: str, expected: str, answer: str, wanted: int) -> None:
    assert score(folder, "sql_execution", expected, answer, database=database) == wanted


def test_sql_that_never_ends_scores_nothing_and_harms_no_other(folder: Path) -> None:
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t"
    scorer = metrics.prepare(
        task(folder, "sql_execution", "SELECT 1", "SELECT 1", "SELECT 2", database="employees.sql")
    )

    start = time.monotonic()
    scores = scorer([endless + " WHERE n < 0", endless, "SELECT 2"])

    assert scores == [0, 0, 1]
    assert time.monotonic() - start < 30


def test_a_sqlite_file_is_left_as_it_was(folder: Path) -> None:
    before = (folder / "employees.sqlite").read_bytes(), sorted(folder.iterdir())

    score(folder, "sql_execution", "SELECT 1", "DROP TABLE employees", database="employees.sqlite")

    after = (folder / "employees.sqlite").read_bytes(), sorted(folder.iterdir())
    assert after[0] == before[0]
    assert {*after[1]} == {*before[1], folder / "data.jsonl"}


@pytest.mark.parametrize(
    "script",
    [
        "ATTACH DATABASE '{outside}' AS x; CREATE TABLE x.t(n);",
        "VACUUM INTO '{outside}';",
        "CREATE TABLE t(",
    ],
)
def test_a_script_that_fails_or_touches_files_is_refused(folder: Path, script: str) -> None:
    outside = folder / "outside.db"
    (folder / "bad.sql").write_text(script.format(outside=outside))

    with pytest.raises(EvaluationError, match=r"^suite office: task skill: options.database: bad"):
        score(folder, "sql_execution", "SELECT 1", "SELECT 1", database="bad.sql")

    assert not outside.exists()


def test_a_file_that_is_no_database_is_refused(folder: Path) -> None:
    (folder / "bad.sqlite").write_text("no database at all" * 100)

    with pytest.raises(EvaluationError, match=r"bad\.sqlite: file is not a database"):
        score(folder, "sql_execution", "SELECT 1", "SELECT 1", database="bad.sqlite")


@pytest.mark.parametrize(
    ("answer", "sql"),
    [
        ("SELECT ';' ; x", "SELECT ';'"),
        ("SELECT 1", "SELECT 1"),
        ("text ```sql\nSELECT 1;\n``` more ```sql\nSELECT 2\n```", "SELECT 1"),
    ],
)
def test_the_statement_of_an_answer(answer: str, sql: str) -> None:
    assert sql_execution.statement(answer) == sql


def test_pattern_share_searches_anywhere(folder: Path) -> None:
    scorer = metrics.prepare(task(folder, "pattern_share", ..., ..., ..., pattern="[A-Z]{4}"))

    assert scorer(["so LOUD!", "quiet", "\ud800 LOUD"]) == [1, 0, 1]


def test_a_pattern_that_backtracks_for_ever_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from merger.evaluate import pattern_share

    monkeypatch.setattr(
        pattern_share, "_SEARCH", pattern_share._SEARCH.replace("(10, 10)", "(1, 1)")
    )
    scorer = metrics.prepare(task(folder, "pattern_share", ..., pattern="(a|aa)+$"))

    with pytest.raises(EvaluationError, match="processor time"):
        scorer(["a" * 100 + "b"])


@pytest.mark.parametrize(
    ("metric", "expected", "options", "message"),
    [
        ("exact_match", ..., {}, "data.jsonl:1: expected: missing, exact_match compares with it"),
        ("contains", 7, {}, "data.jsonl:1: expected: expected a text, found a number"),
        ("contains", " ", {}, "data.jsonl:1: expected: expected a text, found an empty text"),
        ("json_match", "{", {}, "data.jsonl:1: expected: expected a JSON value or the text of one"),
        ("json_match", ..., {}, "data.jsonl:1: expected: missing, json_match compares with it"),
        (
            "sql_execution",
            "SELECT x FROM employees",
            {"database": "employees.sql"},
            "data.jsonl:1: expected: expected SQL that runs, no such column: x",
        ),
        (
            "sql_execution",
            "DROP TABLE employees",
            {"database": "employees.sql"},
            "data.jsonl:1: expected: expected SQL that runs, only SELECT and WITH are run",
        ),
        (
            "sql_execution",
            "SELECT 1",
            {"database": "../x.sql"},
            "options.database: expected a file beside suite.yaml, found ../x.sql",
        ),
        ("sql_execution", "SELECT 1", {}, "options.database: expected a text, found nothing"),
        (
            "pattern_share",
            ...,
            {"pattern": "("},
            (
                "options.pattern: expected a regular expression of Python, "
                "missing ), unterminated subpattern at position 0"
            ),
        ),
        (
            "rouge",
            "x",
            {},
            (
                "metric: expected one of choice, contains, exact_match, json_match, json_valid, "
                "latency, lm_eval, pattern_share, perplexity, python_pass_at_k, sql_execution, "
                "throughput, found rouge"
            ),
        ),
    ],
)
def test_a_mistake_of_the_suite_is_named_with_its_place(
    folder: Path, metric: str, expected: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluationError) as caught:
        metrics.prepare(task(folder, metric, expected, **options))

    assert caught.value.message == f"suite office: task skill: {message}"
    assert caught.value.task == "skill"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.jsonl: expected at least one line, found none"),
        (b"\n{\n", "data.jsonl:2: expected a JSON object on one line"),
        (b"\xff", "data.jsonl:1: expected a JSON object on one line"),
        (b"[" * 100_000, "data.jsonl:1: expected a JSON object on one line"),
        (b"[1]", "data.jsonl:1: expected a JSON object, found a list"),
        (b'{"id": 1, "prompt": "x"}', "data.jsonl:1: id: expected a text, found a number"),
        (b'{"id": "", "prompt": "x"}', "data.jsonl:1: id: expected a text, found an empty text"),
        (b'{"id": "a"}', "data.jsonl:1: prompt: expected a text, found nothing"),
        (b'{"id": "a", "prompt": {}}', "data.jsonl:1: prompt: expected a text, found an object"),
        (
            b'{"id": "a", "prompt": "x", "expectd": "y"}',
            "data.jsonl:1: expectd: unknown field, expected id, prompt, expected, choices",
        ),
        (
            b'{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}',
            "data.jsonl:2: id: expected an id of its own, found that of line 1 again",
        ),
    ],
)
def test_a_broken_line_is_named_with_its_place(folder: Path, content: bytes, message: str) -> None:
    (folder / "data.jsonl").write_bytes(content)

    with pytest.raises(EvaluationError) as caught:
        read(folder)

    assert caught.value.message == f"suite office: task skill: {message}"


def test_a_data_file_that_is_missing_or_elsewhere_is_refused(folder: Path) -> None:
    for name in ("absent.jsonl", "../data.jsonl"):
        with pytest.raises(EvaluationError, match=r"data: expected a file beside suite.yaml"):
            read(folder, data=name)


def test_json_equality_tells_truth_values_from_numbers() -> None:
    assert json_match.is_equal([1, {"a": 1.0}], [1.0, {"a": 1}])
    assert not json_match.is_equal([True], [1])
    assert not json_match.is_equal({"a": 0}, {"a": False})
    assert not json_match.is_equal([], {})
