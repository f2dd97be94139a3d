"""Which file of a catalog is what, by its path alone. Opens no file.

What is expected nowhere is a problem, unless Git ignores it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from registry.errors import Problem
from registry.tree import Entry

_NAME = r"(?P<name>[^/]+)"
_LAYOUT: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("registry", re.compile(r"catalog/registry\.yaml")),
    ("base", re.compile(rf"catalog/bases/{_NAME}/base\.yaml")),
    ("adapter", re.compile(rf"catalog/adapters/{_NAME}/(?P<version>[^/]+)/adapter\.yaml")),
    ("checkpoint", re.compile(rf"catalog/checkpoints/{_NAME}/(?P<version>[^/]+)/checkpoint\.yaml")),
    ("merge", re.compile(rf"catalog/merges/{_NAME}\.yaml")),
    ("suite", re.compile(rf"catalog/suites/{_NAME}/suite\.yaml")),
)
_SUITE_DATA = re.compile(r"catalog/suites/[^/]+/[^/]+")
_ALLOWED = re.compile(
    r"catalog/builds/[^/]+\.(json|dvc)"
    r"|catalog/(bases/[^/]+|adapters/[^/]+/[^/]+|checkpoints/[^/]+/[^/]+)/weights\.dvc"
    r"|(.*/)?(README\.md|\.[^/]+)"
)


@dataclass(frozen=True, slots=True)
class Document:
    """A file that must be a document of this kind, with the name and version that its path says."""

    kind: str
    place: Mapping[str, str]
    entry: Entry

    @property
    def path(self) -> str:
        """Its path from the root."""
        return self.entry.path


def document(entry: Entry) -> Document | None:
    """Return what document a file must be, None if it must be none."""
    for kind, pattern in _LAYOUT:
        if match := pattern.fullmatch(entry.path):
            return Document(kind, match.groupdict(), entry)
    return None


def sort(
    entries: Iterable[Entry], is_ignored: Callable[[list[str]], set[str]]
) -> tuple[list[Document], list[Problem]]:
    """Return the documents among files, and those that may not lie where they do."""
    found: list[Document] = []
    problems: list[Problem] = []
    unexpected: list[str] = []
    for entry in entries:
        path = entry.path
        if entry.is_link:
            message = "expected a regular file, found a symlink or submodule"
            problems.append(Problem(path, 0, 0, "", message, "copy the file itself here"))
        elif one := document(entry):
            found.append(one)
        elif not _ALLOWED.fullmatch(path) and not _SUITE_DATA.fullmatch(path):
            unexpected.append(path)
    ignored = is_ignored(unexpected) if unexpected else set()
    problems += [_unexpected(path) for path in unexpected if path not in ignored]
    return found, problems


def _unexpected(path: str) -> Problem:
    hint = "a catalog holds bases/, adapters/, checkpoints/, merges/, suites/ and builds/ only"
    if path.endswith(".yml"):
        hint = f"rename it to {path.removesuffix('.yml')}.yaml"
    elif path.endswith(".yaml"):
        hint = "merges lie in catalog/merges/NAME.yaml, adapters in catalog/adapters/NAME/VERSION/"
    return Problem(path, 0, 0, "", "nothing is expected at this path", hint)
