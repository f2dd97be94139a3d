"""Whether plain data fit a JSON Schema, and nothing more: thirty times faster than asking for why.

Most documents are valid, so most need no message and no jsonschema. A schema becomes a function
once. Knows the keywords of our schemas as `schema` extends them; with any other one there is no
function, and jsonschema judges alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import schemas
from registry.documents import numbers

Check = Callable[[Any], bool]
Schema = Mapping[str, Any] | bool

_FILE = ".schema.json"
_SILENT = frozenset(
    ("$schema", "$id", "$defs", "title", "description", "examples", "default", "then", "else")
)
_TYPES: Mapping[str, Check] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,  # 1.0 and true are none, as in `schema`
    "number": lambda value: type(value) in (int, float),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}
# What fails, if the value is of the type that the keyword speaks of: NaN fails no limit.
_LIMITS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", lambda value, limit: value < limit),
    "maximum": ("number", lambda value, limit: value > limit),
    "exclusiveMinimum": ("number", lambda value, limit: value <= limit),
    "exclusiveMaximum": ("number", lambda value, limit: value >= limit),
    "minLength": ("string", lambda value, limit: len(value) < limit),
    "maxLength": ("string", lambda value, limit: len(value) > limit),
    "minItems": ("array", lambda value, limit: len(value) < limit),
    "maxItems": ("array", lambda value, limit: len(value) > limit),
    "minProperties": ("object", lambda value, limit: len(value) < limit),
}


class _UnknownKeyword(Exception):
    """A schema says something that has no function here."""


def compiled(schema: Mapping[str, Any]) -> Check | None:
    """Return the function that tells whether data fit a schema, None if it cannot be made."""
    try:
        return _Compiler(schema).check(schema)
    except _UnknownKeyword:
        return None


class _Compiler:
    """Makes functions of a schema and of the parts that it refers to."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._parts: dict[str, Check] = {}

    def check(self, schema: Schema) -> Check:
        if isinstance(schema, bool):
            return lambda _: bool(schema)
        checks = [self._keyword(keyword, schema) for keyword in schema if not _is_silent(keyword)]
        if len(checks) == 1:
            return checks[0]

        def every(value: Any) -> bool:
            for check in checks:  # noqa: SIM110  all() makes a generator each time
                if not check(value):
                    return False
            return True

        return every

    def _keyword(self, keyword: str, schema: Mapping[str, Any]) -> Check:
        if keyword in _LIMITS:
            return _limit(*_LIMITS[keyword], schema[keyword])
        makers: Mapping[str, Callable[[Any], Check]] = {
            "type": _type,
            "pattern": _pattern,
            "required": _required,
            "const": lambda value: _enum([value]),
            "enum": _enum,
            "$ref": self._ref,
            "properties": self._properties,
            "items": self._items,
            "propertyNames": self._names,
            "allOf": self._all,
            "anyOf": lambda parts: self._count(parts, range(1, len(parts) + 1)),
            "oneOf": lambda parts: self._count(parts, range(1, 2)),
            "not": lambda part: self._count([part], range(1)),
            "x-range": self._range,
            "dependentRequired": _dependent,
        }
        if keyword in makers:
            return makers[keyword](schema[keyword])
        if keyword == "additionalProperties":
            return self._additional(schema)
        if keyword == "if":
            return self._if(schema)
        raise _UnknownKeyword(keyword)

    def _ref(self, place: str) -> Check:
        file, _, inside = place.partition("#")
        if file and not file.endswith(_FILE):
            raise _UnknownKeyword(place)
        if file:
            other = _Compiler(schemas.load(file.removesuffix(_FILE)))
            return other._ref(f"#{inside}")
        if place not in self._parts:
            part: Any = self._root
            for name in filter(None, inside.split("/")):
                part = part[name]
            # It may hold itself, and is known under its place only when it is made.
            self._parts[place] = lambda value: self._parts[place](value)  # noqa: PLW0108
            self._parts[place] = self.check(part)
        return self._parts[place]

    def _all(self, parts: list[Schema]) -> Check:
        checks = [self.check(part) for part in parts]
        return lambda value: all(check(value) for check in checks)

    def _count(self, parts: list[Schema], allowed: range) -> Check:
        checks = [self.check(part) for part in parts]
        return lambda value: sum(check(value) for check in checks) in allowed

    def _if(self, schema: Mapping[str, Any]) -> Check:
        condition = self.check(schema["if"])
        then, otherwise = (self.check(schema.get(name, True)) for name in ("then", "else"))
        return lambda value: then(value) if condition(value) else otherwise(value)

    def _properties(self, parts: Mapping[str, Schema]) -> Check:
        checks = {name: self.check(part) for name, part in parts.items()}

        def check(value: Any) -> bool:
            if not isinstance(value, dict):
                return True
            for name, one in value.items():
                if name in checks and not checks[name](one):
                    return False
            return True

        return check

    def _additional(self, schema: Mapping[str, Any]) -> Check:
        if "patternProperties" in schema:
            raise _UnknownKeyword("patternProperties")
        known = frozenset(schema.get("properties", ()))
        one_more = self.check(schema["additionalProperties"])

        def check(value: Any) -> bool:
            if not isinstance(value, dict):
                return True
            more = value.keys() - known
            return not more or all(one_more(value[name]) for name in more)

        return check

    def _items(self, part: Schema) -> Check:
        one = self.check(part)
        return lambda value: not isinstance(value, list) or all(map(one, value))

    def _names(self, part: Schema) -> Check:
        name = self.check(part)
        return lambda value: not isinstance(value, dict) or all(map(name, value))

    def _range(self, limits: Schema) -> Check:
        limit = self.check(limits)

        def check(value: Any) -> bool:
            return not isinstance(value, dict) or all(limit(one) for _, one in numbers(value))

        return check


def _is_silent(keyword: str) -> bool:
    return keyword in _SILENT or (keyword.startswith("x-") and keyword != "x-range")


def _limit(kind: str, fails: Callable[[Any, Any], bool], limit: Any) -> Check:
    is_kind = _TYPES[kind]
    return lambda value: not (is_kind(value) and fails(value, limit))


def _pattern(pattern: str) -> Check:
    match = re.compile(pattern).fullmatch
    return lambda value: not isinstance(value, str) or match(value) is not None


def _required(names: list[str]) -> Check:
    wanted = frozenset(names)
    return lambda value: not isinstance(value, dict) or wanted <= value.keys()


def _type(kinds: str | list[str]) -> Check:
    if isinstance(kinds, str):
        return _TYPES[kinds]
    checks = [_TYPES[kind] for kind in kinds]
    return lambda value: any(check(value) for check in checks)


def _enum(allowed: list[Any]) -> Check:
    if not all(isinstance(one, str | int | None) for one in allowed):
        msg = "a value that is not text, a whole number, a truth value or null"
        raise _UnknownKeyword(msg)
    if all(isinstance(one, str) for one in allowed):
        return lambda value: isinstance(value, str) and value in allowed
    return lambda value: any(_is_equal(value, one) for one in allowed)


def _is_equal(value: Any, one: Any) -> bool:
    # In JSON Schema 1 is 1.0, and true is no number.
    is_number = isinstance(one, int) and not isinstance(one, bool)
    kinds = (int, float) if is_number else (type(one),)
    return type(value) in kinds and value == one


def _dependent(needs: Mapping[str, list[str]]) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        return all(name in value for key, names in needs.items() if key in value for name in names)

    return check
