"""YAML text to plain data with the place of every value; refuses what is more than data.

Knows no schema and no meaning. YAML is read event by event, never through a loader, so that
anchors, tags and merge keys are seen before anything is built from them: a few hundred bytes of
nested merge keys cost a loader seconds, and duplicate keys are lost without a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.errors import Problem
from registry.scalars import scalar

Path_ = tuple[str | int, ...]

MAX_BYTES = 256 << 10
MAX_DEPTH = 32
MAX_PROBLEMS = 100
"""Of one file: nobody reads more, and a hostile file could have a hundred thousand."""

_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
# What YAML calls printable; everything else would hide something from whoever reads the file.
# U+2028, U+2029 and U+0085 end a line for YAML 1.1 parsers but not for editors.
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Document:
    """One file as plain data, and where each value stands; lines and columns count from 1."""

    file: str
    data: Any
    places: Mapping[Path_, tuple[int, int]]
    keys: Mapping[Path_, tuple[int, int]] = field(default_factory=dict)
    """Place of the key instead of the value, for entries of mappings."""
    sources: Mapping[Path_, str] = field(default_factory=dict)
    """Numbers as they are written."""

    def place(self, path: Path_) -> tuple[int, int]:
        """Return line and column of a value, or of its nearest known ancestor."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))

    def key_place(self, path: Path_) -> tuple[int, int]:
        """Return line and column of the key of a value, or the value's where it has none."""
        return self.keys.get(path) or self.place(path)


def field_text(path: Path_) -> str:
    """Return a path as people write it: `recipe.terms[1].weight`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            is_plain = len(part) <= _SHOWN and _PLAIN_KEY.fullmatch(part)
            text += ("." if text else "") + (part if is_plain else quote(part))
    return text


def quote(text: str) -> str:
    """Return text in double quotes, shortened, and harmless on a terminal."""
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    quoted = json.dumps(shown, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)


def parse(text: bytes, file: str) -> tuple[Document | None, list[Problem]]:
    """Return the document of one file, or none and everything that is wrong with it."""
    if len(text) > MAX_BYTES:
        message = f"expected at most 256 KiB, found {len(text)} bytes"
        return None, [Problem(file, 0, 0, "", message, "a catalog holds declarations, not data")]
    if text.startswith(_BOMS):
        message = "expected UTF-8 without a byte order mark, found one"
        return None, [Problem(file, 1, 1, "", message, "save the file as plain UTF-8")]
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _position(text[: error.start].decode("utf-8"))
        message = f"expected UTF-8, found the byte 0x{text[error.start]:02x}"
        return None, [Problem(file, line, column, "", message, "save the file as UTF-8")]
    if found := _UNPRINTABLE.search(decoded):
        line, column = _position(decoded[: found.start()])
        message = f"expected printable text, found U+{ord(found.group()):04X}"
        hint = "remove it: who reads the file would not see it"
        return None, [Problem(file, line, column, "", message, hint)]
    return _Composer(file).compose(decoded)


def _position(before: str) -> tuple[int, int]:
    lines = re.split(r"\r\n|\r|\n", before)
    return len(lines), len(lines[-1]) + 1


@dataclass(slots=True)
class _Frame:
    """A collection that is still open."""

    value: dict[str, Any] | list[Any]
    path: Path_
    is_flow: bool = False
    key: str | None = None  # of a mapping: the key whose value comes next
    is_ignored: bool = False  # below a key that was refused: read, but not kept
    wants_value: bool = False


class _Composer:
    """Events of one text to data; keeps going after a problem where the structure is clear."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.places: dict[Path_, tuple[int, int]] = {}
        self.keys: dict[Path_, tuple[int, int]] = {}
        self.sources: dict[Path_, str] = {}
        self.stack: list[_Frame] = []
        self.data: Any = None
        self.documents = 0

    def compose(self, text: str) -> tuple[Document | None, list[Problem]]:
        import yaml  # 40 ms: a command whose files are all in the index does without

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            for event in yaml.parse(text, Loader=loader):
                goes_on = self._take(type(event).__name__, event)
                if not goes_on or len(self.problems) >= MAX_PROBLEMS:
                    break
        except yaml.MarkedYAMLError as error:
            self.problems.append(_syntax_problem(self.file, text, error))
        if not self.problems and not self.documents:
            self._refuse((0, 0), "", "expected a mapping, found an empty file")
        if self.problems:
            return None, sorted(set(self.problems))
        document = Document(self.file, self.data, self.places, self.keys, self.sources)
        return document, []

    def _take(self, kind: str, event: Any) -> bool:
        """Take one event; return whether to go on."""
        if kind in ("ScalarEvent", "MappingStartEvent", "SequenceStartEvent", "AliasEvent"):
            return self._node(kind, event)
        if kind in ("MappingEndEvent", "SequenceEndEvent"):
            self.stack.pop()
        elif kind == "DocumentStartEvent":
            return self._start_document(event)
        return True

    def _start_document(self, event: Any) -> bool:
        self.documents += 1
        place = _place(event)
        if event.version or event.tags:
            hint = "remove the lines that start with %; files are read as YAML 1.2"
            self._refuse(place, "", "expected no directive, found one", hint)
        if self.documents > 1:
            hint = "put every document into a file of its own"
            self._refuse(place, "", "expected one document, found another one", hint)
            return False
        return True

    def _node(self, kind: str, event: Any) -> bool:
        frame = self.stack[-1] if self.stack else None
        is_key = frame is not None and isinstance(frame.value, dict) and not frame.wants_value
        path = frame.path if frame and is_key else self._path_of_value(frame)
        self._refuse_references(kind, event, path)
        if is_key and frame is not None:
            self._take_key(frame, kind, event)
            if kind in ("ScalarEvent", "AliasEvent"):
                return True
            ignored: dict[str, Any] | list[Any] = {} if kind == "MappingStartEvent" else []
            return self._open(event, _Frame(ignored, path, is_ignored=True))
        return self._take_value(frame, kind, event, path)

    @staticmethod
    def _path_of_value(frame: _Frame | None) -> Path_:
        if frame is None:
            return ()
        if isinstance(frame.value, list):
            return (*frame.path, len(frame.value))
        return frame.path if frame.key is None else (*frame.path, frame.key)

    def _refuse_references(self, kind: str, event: Any, path: Path_) -> None:
        where = field_text(path)
        if kind == "AliasEvent":
            hint = 'write the value out; a text that starts with * needs quotes, such as "*.mlp.*"'
            self._refuse(_place(event), where, f"expected no alias, found *{event.anchor}", hint)
            return
        if event.anchor is not None:
            hint = "write the value out where it is needed; a text that starts with & needs quotes"
            self._refuse(_place(event), where, f"expected no anchor, found &{event.anchor}", hint)
        if event.tag is not None:
            hint = "remove the tag; a text that starts with ! needs quotes"
            found = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(_place(event), where, f"expected no tag, found {quote(found)}", hint)

    def _take_key(self, frame: _Frame, kind: str, event: Any) -> None:
        frame.wants_value = True
        frame.key = None
        place = _place(event)
        where = field_text(frame.path)
        if kind == "AliasEvent":
            return
        if kind != "ScalarEvent":
            what = "a mapping" if kind == "MappingStartEvent" else "a list"
            self._refuse(place, where, f"expected text as key, found {what}")
            return
        value = scalar(event.value) if event.implicit[0] else event.value
        if event.implicit[0] and value == "<<":
            hint = "write the fields out"
            self._refuse(place, where, "expected no merge key, found <<", hint)
        elif not isinstance(value, str):
            hint = self._comma_hint(frame, event.value) or f'write "{event.value}" in quotes'
            found = event.value[:_SHOWN] or "nothing"
            self._refuse(place, where, f"expected text as key, found {found}", hint)
        else:
            self._take_name(frame, value, place)

    def _take_name(self, frame: _Frame, key: str, place: tuple[int, int]) -> None:
        path = (*frame.path, key)
        if isinstance(frame.value, dict) and key in frame.value:
            first = self.keys.get(path, place)[0]
            hint = f"the first one is in line {first}; keep one of them"
            found = f"expected every key once, found {quote(key)} again"
            self._refuse(place, field_text(path), found, hint)
            return
        frame.key = key
        if not frame.is_ignored:
            self.keys[path] = place

    def _take_value(self, frame: _Frame | None, kind: str, event: Any, path: Path_) -> bool:
        is_kept = frame is None or not (
            frame.is_ignored or (isinstance(frame.value, dict) and frame.key is None)
        )
        if is_kept:
            self.places[path] = _place(event)
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            collection: dict[str, Any] | list[Any] = {} if kind == "MappingStartEvent" else []
            self._put(frame, collection)
            return self._open(event, _Frame(collection, path, is_ignored=not is_kept))
        value = None
        if kind == "ScalarEvent":
            value = scalar(event.value) if event.implicit[0] else event.value
        if is_kept and type(value) in (int, float):
            self.sources[path] = event.value
        self._put(frame, value)
        return True

    def _put(self, frame: _Frame | None, value: Any) -> None:
        if frame is None:
            self.data = value
        elif isinstance(frame.value, list):
            frame.value.append(value)
        else:
            if frame.key is not None:
                frame.value[frame.key] = value
            frame.wants_value = False

    def _open(self, event: Any, frame: _Frame) -> bool:
        frame.is_flow = bool(event.flow_style)
        self.stack.append(frame)
        if len(self.stack) <= MAX_DEPTH:
            return True
        found = f"expected at most {MAX_DEPTH} nested collections, found more"
        self._refuse(_place(event), "", found)
        return False

    def _comma_hint(self, frame: _Frame, text: str) -> str:
        """Return the cure for `{weight: -0,5}`, which YAML reads as two entries, or nothing."""
        if not frame.is_flow or not isinstance(frame.value, dict) or not frame.value:
            return ""
        key = list(frame.value)[-1]
        before = self.sources.get((*frame.path, key), "")
        is_split = re.fullmatch("[-+]?[0-9]+", before) and text.isdecimal()
        return f"a decimal comma? write {key}: {before}.{text} with a point" if is_split else ""

    def _refuse(self, place: tuple[int, int], where: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, *place, where, message, hint))


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


# Parts of libyaml's messages to what helps; the first that fits is taken.
_SYNTAX_HINTS = (
    ("mapping values are not allowed", 'check the indentation; a text with ": " needs quotes'),
    ("scanning an alias", 'a text that starts with * needs quotes, such as "*.mlp.*"'),
    ("scanning an anchor", "a text that starts with & needs quotes"),
    ("expected ',' or '}'", "close the mapping with }"),
    ("expected ',' or ']'", "close the list with ]"),
    ("expected ':'", "write key: value, with a space after the colon"),
    ("expected <document start>", "one mapping per file, and every key in the same column"),
    ("expected key", "give every key of a mapping the same indentation"),
    ("expected '-' indicator", "give every entry of a list the same indentation"),
    ("unexpected end of stream", "close the quotes"),
    ("tag", "a text that starts with ! needs quotes"),
    ("escape", "write a backslash twice in double quotes, or use single quotes"),
)


def _syntax_problem(file: str, text: str, error: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    said = " ".join(part for part in (error.context, error.problem) if part)
    hint = _token_hint(text, line, column) if "cannot start any token" in said else ""
    hint = hint or next((cure for part, cure in _SYNTAX_HINTS if part in said), "")
    return Problem(
        file, line, column, "", f"expected YAML, found an error: {_one_line(said)}", hint
    )


def _token_hint(text: str, line: int, column: int) -> str:
    lines = re.split(r"\r\n|\r|\n", text)
    rest = lines[line - 1][column - 1 :] if line <= len(lines) else ""
    if rest.startswith("\t"):
        return "indent with spaces, not with tabs"
    return f"a text that starts with {rest[0]} needs quotes" if rest else ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]


def numbers(data: Any, path: Path_ = ()) -> Iterator[tuple[Path_, int | float]]:
    """Return every number of plain data with its path, booleans not counted."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from numbers(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from numbers(value, (*path, index))
    elif type(data) in (int, float):
        yield path, data


@dataclass(frozen=True, slots=True)
class Node:
    """Where a value stands in a text: offsets in characters, the column of a mapping's keys.

    `key_end` is where its key ends, its own start if it is no value of a mapping.
    """

    key_end: int
    start: int
    end: int
    column: int
    is_flow: bool
    is_scalar: bool


def nodes(text: str) -> dict[Path_, Node]:
    """Return the place of every value of a text that `parse` accepts, in the order of the text."""
    import yaml

    # Not the loader in C, whose marks count bytes where there is more than ASCII.
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    found: dict[Path_, Node] = {}

    def visit(path: Path_, node: Any, key_end: int) -> None:
        start, end = node.start_mark, node.end_mark
        is_scalar = isinstance(node, yaml.ScalarNode)
        is_flow = not is_scalar and bool(node.flow_style)
        found[path] = Node(key_end, start.index, end.index, start.column, is_flow, is_scalar)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                visit((*path, key.value), value, key.end_mark.index)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                visit((*path, number), value, value.start_mark.index)

    visit((), root, 0)
    return found
