"""The build request as frozen values, checked against the methods' schemas. Knows no tensor.

The request arrives with every default written out. What is missing, unknown or out of range is
refused: a default filled in here would be a number that no build key knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import schemas
from merger.errors import InputError
from schemas import plugins
from schemas.canonical import canonical
from schemas.plugins import PluginError
from schemas.schedule import Scheduled

FORMAT_VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DTYPES = ("base", "float32", "bfloat16", "float16")
_VERSIONED = ("adapter", "checkpoint")
_SEED = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_OVERRIDES = ("density", "trim_density")


@dataclass(frozen=True, slots=True)
class Operand:
    """One input: the base, an adapter, a checkpoint or a published merge."""

    kind: str
    name: str
    version: int | None
    digest: str

    @property
    def short(self) -> str:
        """The name that people read: `sql@1`, or `general-coding` for a merge."""
        return self.name if self.version is None else f"{self.name}@{self.version}"

    @property
    def label(self) -> str:
        """Kind and name, as in `adapter sql@1`."""
        return f"{self.kind} {self.short}"


@dataclass(frozen=True, slots=True)
class Term:
    """An operand with its weight and the parameters that differ for it."""

    operand: Operand
    weight: Scheduled
    parameters: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Kind and name of the operand, as in `adapter sql@1`."""
        return self.operand.label

    @property
    def field(self) -> str:
        """Path of the term in the request."""
        return f"recipe.terms[{self.label}]"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What determines the numbers: method, parameters, terms, precision, seed if chance is used."""

    method: str
    parameters: Mapping[str, Any]
    terms: tuple[Term, ...]
    compute: str
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """Type of the written tensors (`base`: each keeps its own) and the largest shard in bytes."""

    dtype: str
    max_shard_size: int


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Everything that determines an artifact; `data` is its plain form, terms in our order."""

    base: Operand
    recipe: Recipe
    output: Output
    data: Mapping[str, Any]


def parse(data: Any) -> BuildRequest:
    """Return the request in plain data; terms of a symmetric method are sorted as in the key.

    Raises InputError naming the field for anything that this version does not build exactly.
    """
    keys = ("format_version", "numerics", "base", "recipe", "output")
    _expect_keys(data, "", required=keys)
    _expect_equal(data["format_version"], FORMAT_VERSION, "format_version")
    if data["numerics"] != schemas.numerics():
        why = f"this merger computes numerics {schemas.numerics()}, found {data['numerics']!r}"
        raise InputError(why, field="numerics")
    base = _operand(data["base"], "base", kinds=("base",))
    recipe, recipe_data = _recipe(data["recipe"])
    output = _output(data["output"])
    return BuildRequest(base, recipe, output, {**data, "recipe": recipe_data})


def _recipe(data: Any) -> tuple[Recipe, dict[str, Any]]:
    field = "recipe"
    keys = ("method", "parameters", "terms", "compute")
    _expect_keys(data, field, required=keys, optional=("seed", "package"))
    method = data["method"]
    schema = _method(method, data.get("package"))
    if schema["x-seed"] != ("seed" in data):
        why = "expected a seed exactly where the method uses chance"
        raise InputError(why, field="recipe.seed")
    if schema["x-seed"]:
        _check_parameter(data["seed"], _SEED, "recipe.seed")
    if data["compute"] not in ("float32", "float64"):
        why = f"expected float32 or float64, found {data['compute']!r}"
        raise InputError(why, field="recipe.compute")
    parameters = data["parameters"]
    _expect_keys(parameters, "recipe.parameters", required=tuple(schema["properties"]))
    for name, value in parameters.items():
        _check_parameter(value, schema["properties"][name], f"recipe.parameters.{name}")
    ordered = _ordered(data["terms"], schema)
    terms = tuple(_term(term, index, schema) for index, term in enumerate(ordered))
    _check_terms(terms, parameters)
    recipe = Recipe(method, parameters, terms, data["compute"], data.get("seed"))
    return recipe, {**data, "terms": ordered}


def _method(name: Any, package: Any) -> Mapping[str, Any]:
    """Return the method's entry; of a package's method, if the very version is installed."""
    try:
        schema = schemas.method(name) if isinstance(name, str) else None
    except KeyError:
        schema = None
    except PluginError as error:
        raise InputError(str(error), field="recipe.method") from error
    if schema is None:
        raise InputError(f"this merger has no method {name!r}", field="recipe.method")
    plugin = None if name in schemas.methods() else plugins.find(name)
    found = plugin.pinned if plugin else None
    if package != found:
        raise InputError(f"expected {package}, found {found}", field="recipe.package")
    return schema


def _ordered(terms: Any, schema: Mapping[str, Any]) -> list[Any]:
    if not isinstance(terms, list) or len(terms) < schema["x-terms"]:
        why = f"expected a list of at least {schema['x-terms']} terms"
        raise InputError(why, field="recipe.terms")
    if len(terms) > schema.get("x-terms-max", len(terms)):
        why = f"expected at most {schema['x-terms-max']} terms, found {len(terms)}"
        raise InputError(why, field="recipe.terms")
    if not schema["x-symmetric"]:
        return terms
    for index, term in enumerate(terms):
        _expect_keys(term, f"recipe.terms[{index}]", required=("input", "weight", "parameters"))
        _operand(term["input"], f"recipe.terms[{index}].input", kinds=(*_VERSIONED, "merge"))
    return sorted(terms, key=lambda term: (term["input"]["digest"], canonical(term)))


def _term(data: Any, index: int, schema: Mapping[str, Any]) -> Term:
    field = f"recipe.terms[{index}]"
    operand = _operand(data["input"], f"{field}.input", kinds=(*_VERSIONED, "merge"))
    term = Term(operand, data["weight"], data["parameters"])
    _check_parameter(term.weight, {"type": ["number", "object"]}, f"{term.field}.weight")
    if not schema["x-weights"] and term.weight != 1:
        raise InputError("this method takes no weights", field=f"{term.field}.weight")
    if not isinstance(term.parameters, dict):
        raise InputError("expected a map", field=f"{term.field}.parameters")
    for name, value in term.parameters.items():
        where = f"{term.field}.parameters.{name}"
        known = schema["properties"].get(name, {"x-per-term": False})
        if name not in _OVERRIDES or not known.get("x-per-term", True):
            raise InputError("expected a parameter that a term may override", field=where)
        _check_parameter(value, schema["properties"][name], where)
    return term


def _check_terms(terms: tuple[Term, ...], parameters: Mapping[str, Any]) -> None:
    labels = [term.label for term in terms]
    for term in terms:
        if labels.count(term.label) > 1:
            raise InputError("expected every term once, found it twice", field=term.field)
    if parameters.get("scope") != "model":
        return
    # What trims the scope; in front of it DARE drops tensor by tensor.
    share = "trim_density" if "trim_density" in parameters else "density"
    densities = {f"recipe.parameters.{share}": parameters[share]}
    for term in terms:
        if share in term.parameters:
            densities[f"{term.field}.parameters.{share}"] = term.parameters[share]
    for field, density in densities.items():
        if isinstance(density, Mapping):
            raise InputError(f"a schedule of {share} needs scope: tensor", field=field)


def _operand(data: Any, field: str, *, kinds: tuple[str, ...]) -> Operand:
    _expect_keys(data, field, required=("kind", "name", "digest"), optional=("version",))
    kind, name, digest, version = (data.get(key) for key in ("kind", "name", "digest", "version"))
    if kind not in kinds:
        raise InputError(
            f"expected one of {', '.join(kinds)}, found {kind!r}", field=f"{field}.kind"
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"expected a catalog name, found {name!r}", field=f"{field}.name")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InputError(f"expected sha256:<hex>, found {digest!r}", field=f"{field}.digest")
    is_number = isinstance(version, int) and not isinstance(version, bool) and version >= 1
    if is_number != (kind in _VERSIONED) or ("version" in data) != is_number:
        why = "expected a whole number from 1 for an adapter or checkpoint, nothing for others"
        raise InputError(why, field=f"{field}.version")
    return Operand(kind, name, version, digest)


def _output(data: Any) -> Output:
    _expect_keys(data, "output", required=("form", "dtype", "max_shard_size"))
    _expect_equal(data["form"], "model", "output.form")
    if data["dtype"] not in _DTYPES:
        why = f"expected one of {', '.join(_DTYPES)}, found {data['dtype']!r}"
        raise InputError(why, field="output.dtype")
    size = data["max_shard_size"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError("expected a number of bytes", field="output.max_shard_size")
    return Output(data["dtype"], size)


def _check_parameter(value: Any, schema: Mapping[str, Any], field: str) -> None:
    if "enum" in schema:
        if value not in schema["enum"]:
            why = f"expected one of {', '.join(schema['enum'])}, found {value!r}"
            raise InputError(why, field=field)
    elif schema.get("type") == "boolean":
        if not isinstance(value, bool):
            raise InputError(f"expected true or false, found {value!r}", field=field)
    elif schema.get("type") == "integer":
        if type(value) is not int or not schema["minimum"] <= value <= schema["maximum"]:
            limits = f"from {schema['minimum']} to {schema['maximum']}"
            raise InputError(f"expected a whole number {limits}, found {value!r}", field=field)
    else:
        for place, number in _numbers(value, field):
            _check_number(number, schema.get("x-range", {}), place)


def _numbers(value: Any, field: str) -> list[tuple[str, Any]]:
    """Return every number of a number or schedule with its place."""
    if not isinstance(value, Mapping):
        return [(field, value)]
    _expect_keys(value, field, required=("layers",), optional=("embeddings", "head", "rules"))
    layers, rules = value["layers"], value.get("rules", [])
    if not isinstance(layers, list) or not layers:
        raise InputError("expected a list of numbers, not empty", field=f"{field}.layers")
    found = [(f"{field}.layers[{index}]", number) for index, number in enumerate(layers)]
    found += [(f"{field}.{key}", value[key]) for key in ("embeddings", "head") if key in value]
    if not isinstance(rules, list):
        raise InputError("expected a list of rules", field=f"{field}.rules")
    for index, rule in enumerate(rules):
        _expect_keys(rule, f"{field}.rules[{index}]", required=("match", "value"))
        if not isinstance(rule["match"], str):
            raise InputError("expected a pattern", field=f"{field}.rules[{index}].match")
        found.append((f"{field}.rules[{index}].value", rule["value"]))
    return found


def _check_number(value: Any, bounds: Mapping[str, float], field: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"expected a finite number, found {value!r}", field=field)
    is_inside = (
        value > bounds.get("exclusiveMinimum", -math.inf)
        and value >= bounds.get("minimum", -math.inf)
        and value <= bounds.get("maximum", math.inf)
        and value < bounds.get("exclusiveMaximum", math.inf)
    )
    if not is_inside:
        limits = ", ".join(f"{name} {limit}" for name, limit in bounds.items())
        raise InputError(f"expected a number with {limits}, found {value}", field=field)


def _expect_keys(
    data: Any, field: str, *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    if not isinstance(data, dict):
        raise InputError("expected a map", field=field)
    for key in required:
        if key not in data:
            raise InputError("expected this field, found none", field=f"{field}.{key}".lstrip("."))
    for key in data:
        if key not in required and key not in optional:
            raise InputError("this field is not understood", field=f"{field}.{key}".lstrip("."))


def _expect_equal(value: Any, expected: Any, field: str) -> None:
    if value != expected or isinstance(value, bool):
        raise InputError(f"expected {expected!r}, found {value!r}", field=field)
