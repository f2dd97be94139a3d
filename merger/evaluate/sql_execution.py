"""sql_execution: does the answer, run as SQL, give the rows of the expected SQL. Knows no model.

Answers are text from a model: they run on a database in memory or opened read-only, may only
select, and are bounded in steps, time, rows and the length of a value.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from merger.evaluate import sql_database
from merger.evaluate.suite import Prompt, Task

Row = tuple[Any, ...]

# A fence may name its language, alone on its line or `sql`; it may be cut off at the end.
_FENCE = re.compile(
    r"```(?:(?!select\b|with\b)[a-z]+[ \t]*(?=\n)|sql(?:ite)?\b)?(.*?)(?:```|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_COMMENT = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)
_QUERY = re.compile(r"(?:select|with)\b", re.IGNORECASE)
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)
_INNER = re.compile(r"\([^()]*\)|'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True, slots=True)
class Expected:
    """The rows of an expected SQL, and whether their order counts."""

    rows: tuple[Row, ...]
    is_ordered: bool

    def equals(self, rows: Sequence[Row]) -> bool:
        """Return whether an answer's rows are the same."""
        if self.is_ordered:
            return tuple(rows) == self.rows
        return Counter(rows) == Counter(self.rows)


def prepare(task: Task) -> Callable[[Sequence[str]], list[float]]:
    """Return the scorer of sql_execution; the expected SQL of every prompt must run."""
    database = task.beside("database")
    try:
        with closing(sql_database.open_database(database)) as connection:
            expected = [_expected(connection, task, prompt) for prompt in task.prompts]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise task.fault(f"options.database: {database.name}: {error}") from error

    def score(answers: Sequence[str]) -> list[float]:
        with closing(sql_database.open_database(database)) as connection:
            pairs = zip(answers, expected, strict=True)
            return [_score(connection, answer, wanted) for answer, wanted in pairs]

    return score


def statement(answer: str) -> str:
    """Return the SQL in an answer: out of its code fence, up to the first `;` that ends it."""
    fenced = _FENCE.search(answer)
    sql = fenced.group(1) if fenced else answer
    for place, letter in enumerate(sql):
        # A `;` inside a quoted text or a comment ends nothing; sqlite knows.
        if letter == ";" and sqlite3.complete_statement(sql[: place + 1]):
            return sql[:place].strip()
    return sql.strip()


def is_ordered(sql: str) -> bool:
    """Return whether the outermost query has an ORDER BY."""
    while (outer := _INNER.sub(" ", sql)) != sql:
        sql = outer
    return _ORDERED.search(sql) is not None


def _expected(connection: sqlite3.Connection, task: Task, prompt: Prompt) -> Expected:
    sql = statement(task.expected_text(prompt))
    try:
        rows = _rows(connection, sql, sql_database.ROWS)
    except (sqlite3.Error, ValueError) as error:
        raise task.fault(f"expected: expected SQL that runs, {error}", prompt) from error
    if len(rows) > sql_database.ROWS:
        msg = f"expected: expected SQL of at most {sql_database.ROWS} rows"
        raise task.fault(msg, prompt)
    return Expected(tuple(rows), is_ordered(sql))


def _score(connection: sqlite3.Connection, answer: str, expected: Expected) -> float:
    try:
        rows = _rows(connection, statement(answer), len(expected.rows))
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError):
        return 0.0  # SQL that fails is a wrong answer, not an error of ours
    return float(expected.equals(rows))


def _rows(connection: sqlite3.Connection, sql: str, most: int) -> list[Row]:
    """Return the rows of a query, one more than `most` if there are more."""
    start = _COMMENT.match(sql)
    if not _QUERY.match(sql, start.end() if start else 0):
        msg = "only SELECT and WITH are run"
        raise ValueError(msg)
    with sql_database.bounded(connection), closing(connection.execute(sql)) as cursor:
        return [tuple(map(_plain, row)) for row in cursor.fetchmany(most + 1)]


def _plain(value: Any) -> Any:
    """Return a value as it is compared: AVG and SUM/COUNT may differ in the last bits."""
    return float(f"{value:.12g}") if isinstance(value, float) else value
