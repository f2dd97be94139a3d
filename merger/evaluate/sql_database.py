"""A sqlite database that can only be asked. Knows no task, no answer and no score."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

ROWS = 10_000  # the most rows that an expected SQL may give

_STEPS = 20_000_000  # instructions of sqlite's machine: a third of a second, alike everywhere
_SECONDS = 10.0  # for the few instructions that take long by themselves
_STEPS_PER_CHECK = 10_000
_SCRIPT_STEPS = 50 * _STEPS
_VALUE_BYTES = 1_000_000
_PATTERN_BYTES = 1_000  # LIKE is a loop inside one instruction

_READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_OUTSIDE = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})


def open_database(path: Path) -> sqlite3.Connection:
    """Open a `.sqlite` file read-only, or run a `.sql` script in memory. Raises sqlite3.Error."""
    if path.suffix == ".sql":
        connection = sqlite3.connect(":memory:", isolation_level=None)
        _run_script(connection, path.read_text("utf-8"))
    else:
        # immutable: no lock and no journal beside a file that may lie on a read-only disk
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # is it a database?
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _PATTERN_BYTES)
    connection.set_authorizer(_only_reading)
    return connection


@contextmanager
def bounded(connection: sqlite3.Connection, steps: int = _STEPS) -> Iterator[None]:
    """Interrupt what runs on the connection after so many steps or 10 s."""
    left = steps // _STEPS_PER_CHECK
    deadline = time.monotonic() + _SECONDS

    def check() -> bool:
        nonlocal left
        left -= 1
        return left < 0 or time.monotonic() > deadline

    connection.set_progress_handler(check, _STEPS_PER_CHECK)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    connection.set_authorizer(_only_inside)
    with bounded(connection, _SCRIPT_STEPS):
        connection.executescript(script)


def _only_inside(action: int, *_: str | None) -> int:
    """Let a script do anything but touch other files."""
    return sqlite3.SQLITE_DENY if action in _OUTSIDE else sqlite3.SQLITE_OK


def _only_reading(action: int, _table: str | None, name: str | None, *_: str | None) -> int:
    is_read = action in _READING and (name or "").lower() != "load_extension"
    return sqlite3.SQLITE_OK if is_read else sqlite3.SQLITE_DENY
