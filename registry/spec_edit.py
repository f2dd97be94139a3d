"""Change values in a spec's text and leave all else as it is: comments, order, spaces. Pure.

A library that writes YAML anew would give a diff in which the change is lost.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from registry import documents
from registry.documents import Node, Path_


def edited(text: str, changes: Mapping[Path_, Any]) -> str:
    """Return a spec's text with other values at some paths; what is not there yet is added.

    A value is a number, a text without special characters, a list or a map of such; it is written
    in one line.
    """
    for path, value in changes.items():
        text = _set(text, path, value)
    return text


def without(text: str, path: Path_) -> str:
    """Return a spec's text without one entry of a list or map; the comment on its line goes too."""
    nodes = documents.nodes(text)
    end = _end(nodes, path)
    siblings = _inside(nodes, path[:-1])
    if not nodes[path[:-1]].is_flow:
        begin = nodes[path].key_end
        if isinstance(path[-1], int):
            begin = text.rfind("-", 0, begin)
        line_end = text.find("\n", end) + 1 or len(text)
        return text[: text.rfind("\n", 0, begin) + 1] + text[line_end:]
    if path != siblings[0]:
        before = siblings[siblings.index(path) - 1]
        return text[: _end(nodes, before)] + text[end:]
    rest = text[end:]
    if len(siblings) > 1:
        rest = rest[rest.index(",") + 1 :].lstrip()
    return text[: nodes[path[:-1]].start + 1] + rest


def diff(before: str, after: str, file: str) -> str:
    """Return the change as a unified diff that `git apply` takes; nothing if there is none."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{file}", f"b/{file}"
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def written(value: Any) -> str:
    """Return a value in YAML's flow style, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _set(text: str, path: Path_, value: Any) -> str:
    nodes = documents.nodes(text)
    if path in nodes:
        found = nodes[path]
        head = text[: found.start]
        if not found.is_flow and not found.is_scalar:
            # A block collection begins on a line of its own; what replaces it does not.
            head = text[: found.key_end] + ": "
        return head + written(value) + text[_end(nodes, path) :]
    missing = len(path) - 1
    while path[:missing] not in nodes:
        missing -= 1
    for key in reversed(path[missing + 1 :]):
        value = {key: value}
    return _add(text, nodes, path[:missing], f"{path[missing]}: {written(value)}")


def _add(text: str, nodes: Mapping[Path_, Node], path: Path_, entry: str) -> str:
    """Return the text with one more entry in a mapping, after its last plain value."""
    mapping = nodes[path]
    inside = _inside(nodes, path)
    if mapping.is_flow:
        place = _end(nodes, inside[-1]) if inside else mapping.start + 1
        return text[:place] + (", " if inside else "") + entry + text[place:]
    plain = [key for key in inside if nodes[key].is_scalar] or inside
    place = _end(nodes, plain[-1])
    line_end = text.find("\n", place)
    line_end = len(text) if line_end < 0 else line_end
    return text[:line_end] + "\n" + " " * mapping.column + entry + text[line_end:]


def _end(nodes: Mapping[Path_, Node], path: Path_) -> int:
    """Return where a value ends; a block collection with the last value inside it."""
    node = nodes[path]
    if node.is_flow or node.is_scalar:
        return node.end
    inside = _inside(nodes, path)
    return _end(nodes, inside[-1]) if inside else node.end


def _inside(nodes: Mapping[Path_, Node], path: Path_) -> list[Path_]:
    """Return the entries of a collection in the order of the text."""
    return [key for key in nodes if len(key) == len(path) + 1 and key[: len(path)] == path]
