"""A parsed document and the way back to its places. Knows no document's meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry import documents
from registry.errors import Problem
from registry.tree import Tree

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """One valid document of a tree."""

    file: str
    data: Mapping[str, Any]
    tree: Tree

    def problem(
        self, path: FieldPath, message: str, hint: str = "", *, is_warning: bool = False
    ) -> Problem:
        """Return a problem at a field of this document.

        The file is parsed again for its places: documents from the index have none, and a problem
        is rare.
        """
        document, _ = documents.parse(self.tree.read(self.file), self.file)
        line, column = document.place(path) if document else (0, 0)
        field = documents.field_text(path)
        return Problem(self.file, line, column, field, message, hint, is_warning)
