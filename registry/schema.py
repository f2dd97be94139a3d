"""Plain data against the JSON Schemas of `schemas/`; every failure becomes a `Problem` with a cure.

Knows what a document may look like, not what it means. jsonschema is imported by the first
document that is not valid: it costs 0.1 s, and 1 ms per document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

import schemas
from registry import cures, quick_check
from registry.documents import MAX_PROBLEMS, Document, Path_, field_text, numbers
from registry.errors import Problem, did_you_mean
from schemas import plugins
from schemas.plugins import PluginError

LARGEST_INTEGER = 2**53 - 1
"""Beyond it, canonical JSON has no whole numbers: programs would read different ones."""


def kind_of(document: Document) -> str | Problem:
    """Return the kind that a document declares, or what is wrong with its declaration."""
    data = document.data
    if not isinstance(data, dict):
        return _problem(document, (), f"expected a mapping, found {cures.describe(data)}")
    kinds = cures.one_of(schemas.KINDS)
    kind = data.get("kind")
    if "kind" not in data:
        hint = "start the file with kind: and one of them"
        return _problem(document, ("kind",), f"expected {kinds}, found no such field", hint)
    if kind in schemas.KINDS:
        return str(kind)
    hint = did_you_mean(kind, schemas.KINDS) if isinstance(kind, str) else ""
    return _problem(document, ("kind",), f"expected {kinds}, found {cures.shown(kind)}", hint)


def validate(document: Document, kind: str) -> list[Problem]:
    """Return everything in which a document departs from its schema, in order of place.

    At most MAX_PROBLEMS of one document.
    """
    declared = kind_of(document)
    if isinstance(declared, str) and declared != kind:
        hint = "the kind follows from the file's place in the catalog"
        return [_problem(document, ("kind",), f"expected {kind}, found {declared}", hint)]
    if not isinstance(document.data, dict):
        return [declared] if isinstance(declared, Problem) else []
    found = list(islice(_findings(document, kind), MAX_PROBLEMS))
    # The first message about a field is the best: a schema states its type first.
    best = {problem.field: problem for problem in reversed(found)}
    return sorted(best.values())


def _findings(document: Document, kind: str) -> Iterator[Problem]:
    try:
        package = _package_method(document.data) if kind == "merge" else ""
        fits = _check(kind, package)
    except PluginError as broken:
        yield _problem(document, ("recipe", "method"), str(broken), "mend or remove the package")
        return
    if fits is None or not fits(document.data):
        for error in _validator(kind, package).iter_errors(document.data):
            yield from _explain(document, tuple(error.absolute_path), error)
    yield from _unusable(document)


def departure(data: Any, name: str) -> str:
    """Return the first thing in which what a program wrote departs from the schema called `name`.

    Nothing if it does not; what people write has `validate`.
    """
    fits = _check(name)
    if fits is not None and fits(data):
        return ""
    written = Document("", data, {})
    for error in _validator(name).iter_errors(data):
        for problem in _explain(written, tuple(error.absolute_path), error):
            return f"{problem.field}: {problem.message}" if problem.field else problem.message
    return ""


def _package_method(data: Any) -> str:
    """Return the recipe's method if an installed package brings it, nothing otherwise."""
    recipe = data.get("recipe")
    method = recipe.get("method") if isinstance(recipe, dict) else None
    if not isinstance(method, str) or method in schemas.methods():
        return ""
    return method if plugins.find(method) else ""


def method_parameters(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter of a method, those not given with their default."""
    parameters = schemas.method(method)["properties"]
    return {name: given.get(name, facts.get("default")) for name, facts in parameters.items()}


def default_of(kind: str, path: tuple[str, ...]) -> Any:
    """Return the default that a schema states for a field, None if it states none."""
    fragment = schemas.load(kind)
    for name in path:
        fragment = fragment["properties"][name]
    return fragment.get("default")


def _problem(
    document: Document, path: Path_, message: str, hint: str = "", *, at_key: bool = False
) -> Problem:
    line, column = document.key_place(path) if at_key else document.place(path)
    return Problem(document.file, line, column, field_text(path), message, hint)


def _unusable(document: Document) -> Iterator[Problem]:
    """Return the numbers that no field may hold, free-form facts included."""
    for path, number in numbers(document.data):
        written = document.sources.get(path, str(number))[:40]
        if isinstance(number, float) and not math.isfinite(number):
            hint = "write a finite number; text needs quotes"
            yield _problem(document, path, f"expected a finite number, found {written}", hint)
        elif isinstance(number, int) and abs(number) > LARGEST_INTEGER:
            message = f"expected a whole number within ±{LARGEST_INTEGER}, found {written}"
            hint = f"write {float(number):g}; text needs quotes"
            yield _problem(document, path, message, hint)


@cache
def _check(kind: str, package_method: str = "") -> quick_check.Check | None:
    return quick_check.compiled(_schema(kind, package_method))


@cache
def _validator(kind: str, package_method: str = "") -> Any:
    from jsonschema import Draft202012Validator, validators
    from referencing import Registry, Resource

    def retrieve(address: str) -> Resource[Any]:
        name = address.rpartition("/")[2].removesuffix(".schema.json")
        return Resource.from_contents(schemas.load(name))

    def is_integer(_: Any, value: Any) -> bool:
        return type(value) is int  # JSON Schema would take 1.0, and Python would take true

    def is_number(_: Any, value: Any) -> bool:
        return type(value) in (int, float)

    checker = Draft202012Validator.TYPE_CHECKER.redefine("integer", is_integer)
    checker = checker.redefine("number", is_number)
    keywords = {"pattern": _check_pattern, "x-range": _check_range}
    make: Any = validators.extend  # untyped
    extended = make(Draft202012Validator, keywords, type_checker=checker)
    others: Any = Registry  # untyped
    return extended(_schema(kind, package_method), registry=others(retrieve=retrieve))


def _schema(kind: str, package_method: str) -> dict[str, Any]:
    plugin = plugins.find(package_method) if package_method else None
    return plugins.extend(schemas.load(kind), plugin) if plugin else schemas.load(kind)


def _check_pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    # All our patterns are anchored; `$` alone would let a line break at the end pass.
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _check_range(validator: Any, limits: Mapping[str, Any], instance: Any, _: Any) -> Iterator[Any]:
    """Hold every number of a schedule to the range of its parameter."""
    if not isinstance(instance, dict):
        return
    for path, number in numbers(instance):
        for error in validator.descend(number, limits):
            error.path.extendleft(reversed(path))
            yield error


def _explain(document: Document, path: Path_, error: Any) -> Iterator[Problem]:
    """Return what one failure means to whoever wrote the file; some stand for several fields."""
    value, schema, keyword = error.instance, error.schema, error.validator
    if keyword == "additionalProperties":
        for name in [name for name in value if name not in schema.get("properties", {})]:
            said = cures.unknown_key(name, value, schema)
            yield _problem(document, (*path, name), *said, at_key=True)
    elif keyword in ("required", "dependentRequired"):
        for name in _absent(error.validator_value, value):
            if not cures.is_meant(name, value, schema):
                yield _problem(document, (*path, name), *cures.missing(name, schema))
    elif "propertyNames" in error.absolute_schema_path:
        said = cures.wrong_text(value, schema)
        yield _problem(document, (*path, value), *said, at_key=True)
    else:
        yield _problem(document, path, *_explain_value(document, path, error))


def _explain_value(document: Document, path: Path_, error: Any) -> cures.Message:
    value, keyword = error.instance, error.validator
    if keyword == "oneOf" and isinstance(value, dict):
        return cures.exactly_one(error.validator_value, value)
    return cures.wrong_value(keyword, value, error.schema, document.sources.get(path))


def _absent(needs: list[str] | Mapping[str, list[str]], value: Mapping[str, Any]) -> list[str]:
    """Return the fields that `required` or `dependentRequired` asks for in vain, each once."""
    if isinstance(needs, Mapping):
        needs = [name for key, names in needs.items() if key in value for name in names]
    return [name for name in dict.fromkeys(needs) if name not in value]
