"""The data files of a suite: JSON lines held to their form, and the suite's digest.

Knows no metric's meaning; the evaluator judges answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from registry.errors import Problem
from registry.index import Index
from registry.tree import Entry, Tree
from schemas import canonical
from schemas.digest import FileHash

_LINE_KEYS = {"id", "prompt", "expected", "choices"}


def check(
    tree: Tree, index: Index, entry: Entry, *, as_lines: bool
) -> tuple[FileHash, list[Problem]]:
    """Return the content hash of a data file, and what is wrong with its lines if it has ours."""
    key = f"{entry.path}{'' if as_lines else '/bytes'}"
    known = index.get_document(key, entry.identity)
    if known is not None:
        return FileHash(known["sha256"], known["size"]), []
    content = tree.read(entry.path)
    found = hash_of(content)
    problems = _lines(entry.path, content) if as_lines else []
    if not problems:
        index.put_document(key, entry.identity, found.as_data())
    return found, problems


def hash_of(content: bytes) -> FileHash:
    """Return the content hash of a file."""
    return FileHash(hashlib.sha256(content).hexdigest(), len(content))


def digest(tasks: Sequence[Mapping[str, Any]], files: Mapping[str, FileHash]) -> str:
    """Return the digest of a suite: its tasks with every default, and the content of its files."""
    content = {name: file.as_data() for name, file in files.items()}
    return canonical.digest({"tasks": list(tasks), "files": content})


def _lines(path: str, content: bytes) -> list[Problem]:
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    rows = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    for number, line in rows:
        data = _parsed(line)
        faults = _faults(data)
        if not faults and (first := seen.setdefault(data["id"], number)) != number:
            faults = [
                ("id", f"expected an id of its own, found {data['id']} of line {first} again")
            ]
        problems += [Problem(path, number, 1, field, text) for field, text in faults]
    if not rows:
        problems.append(Problem(path, 0, 0, "", "expected at least one line, found none"))
    return problems


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _faults(data: Any) -> list[tuple[str, str]]:
    if not isinstance(data, dict):
        return [("", "expected a JSON object on one line")]
    return [
        *((key, "unknown field") for key in sorted(data.keys() - _LINE_KEYS)),
        *((key, "expected a text") for key in ("id", "prompt") if not _is_text(data, key)),
    ]


def _is_text(data: Mapping[str, Any], key: str) -> bool:
    value = data.get(key)
    return isinstance(value, str) and (key != "id" or value != "")
