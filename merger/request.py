"""The build request as frozen values, checked against the methods' schemas. Knows no tensor.

The request arrives with every default written out. What is missing, unknown or out of range is
refused: a default filled in here would be a number that no build key knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import schemas
from merger.errors import InputError
from merger.request_checks import check_parameter, expect_equal, expect_keys
from merger.request_output import Output, parse_output
from schemas import plugins
from schemas.canonical import canonical
from schemas.plugins import PluginError
from schemas.schedule import Scheduled
from schemas.stack import Slice
from schemas.stack import parse as parse_slices

FORMAT_VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSIONED = ("adapter", "checkpoint")
_SEED = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_STACKING = "passthrough"
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
    """What determines the numbers: method, parameters, terms, precision.

    `tokenizer` is whose vocabulary the result has, base or union; `slices` are the layers that
    passthrough stacks.
    """

    method: str
    parameters: Mapping[str, Any]
    terms: tuple[Term, ...]
    compute: str
    seed: int | None = None
    tokenizer: str = "base"
    slices: tuple[Slice, ...] = ()


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
    expect_keys(data, "", required=keys)
    expect_equal(data["format_version"], FORMAT_VERSION, "format_version")
    if data["numerics"] != schemas.numerics():
        why = f"this merger computes numerics {schemas.numerics()}, found {data['numerics']!r}"
        raise InputError(why, field="numerics")
    base = _operand(data["base"], "base", kinds=("base",))
    recipe, recipe_data = _recipe(data["recipe"])
    output = parse_output(data["output"])
    if output.form == "adapter" and (recipe.slices or recipe.tokenizer == "union"):
        why = "an adapter has the base's layers and tokens: no stack, no union"
        raise InputError(why, field="output.form")
    return BuildRequest(base, recipe, output, {**data, "recipe": recipe_data})


def _recipe(data: Any) -> tuple[Recipe, dict[str, Any]]:
    field = "recipe"
    keys = ("method", "parameters", "terms", "compute")
    optional = ("seed", "package", "tokenizer", "slices")
    expect_keys(data, field, required=keys, optional=optional)
    method = data["method"]
    schema = _method(method, data.get("package"))
    if schema["x-seed"] != ("seed" in data):
        why = "expected a seed exactly where the method uses chance"
        raise InputError(why, field="recipe.seed")
    if schema["x-seed"]:
        check_parameter(data["seed"], _SEED, "recipe.seed")
    if data["compute"] not in ("float32", "float64"):
        why = f"expected float32 or float64, found {data['compute']!r}"
        raise InputError(why, field="recipe.compute")
    parameters = data["parameters"]
    expect_keys(parameters, "recipe.parameters", required=tuple(schema["properties"]))
    for name, value in parameters.items():
        check_parameter(value, schema["properties"][name], f"recipe.parameters.{name}")
    ordered = _ordered(data["terms"], schema)
    terms = tuple(_term(term, index, schema) for index, term in enumerate(ordered))
    _check_terms(terms, parameters)
    slices = _slices(data, len(terms))
    tokenizer = _tokenizer(data)
    seed = data.get("seed")
    recipe = Recipe(method, parameters, terms, data["compute"], seed, tokenizer, slices)
    return recipe, {**data, "terms": ordered}


def _tokenizer(data: Mapping[str, Any]) -> str:
    # Written only where it is not the base's, so that there is one request for one result.
    if "tokenizer" not in data:
        return "base"
    expect_equal(data["tokenizer"], "union", "recipe.tokenizer")
    if data["method"] == _STACKING:
        raise InputError("passthrough keeps the base's tokenizer", field="recipe.tokenizer")
    return "union"


def _slices(data: Mapping[str, Any], terms: int) -> tuple[Slice, ...]:
    """Return the slices of passthrough; terms stand in the order of their first use."""
    field = "recipe.slices"
    slices = data.get("slices", [])
    if (data["method"] == _STACKING) != bool(slices) or not isinstance(slices, list):
        raise InputError("expected slices exactly where the method stacks them", field=field)
    used: list[int] = []
    for index, one in enumerate(slices):
        where = f"{field}[{index}]"
        expect_keys(one, where, required=("term", "layers"))
        term, layers = one["term"], one["layers"]
        if term is not None and (type(term) is not int or not 0 <= term <= len(used)):
            why = f"expected null or a term, in the order of first use, found {term!r}"
            raise InputError(why, field=f"{where}.term")
        if term is not None and term not in used:
            used.append(term)
        is_pair = isinstance(layers, list) and [type(n) for n in layers] == [int, int]
        if not is_pair or not 0 <= layers[0] < layers[1]:
            why = f"expected [first, last) with first < last, found {layers!r}"
            raise InputError(why, field=f"{where}.layers")
    if len(used) != terms and slices:
        why = f"expected every term in a slice, found {len(used)} of {terms}"
        raise InputError(why, field=field)
    return parse_slices(slices)


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
        expect_keys(term, f"recipe.terms[{index}]", required=("input", "weight", "parameters"))
        _operand(term["input"], f"recipe.terms[{index}].input", kinds=(*_VERSIONED, "merge"))
    return sorted(terms, key=lambda term: (term["input"]["digest"], canonical(term)))


def _term(data: Any, index: int, schema: Mapping[str, Any]) -> Term:
    field = f"recipe.terms[{index}]"
    operand = _operand(data["input"], f"{field}.input", kinds=(*_VERSIONED, "merge"))
    term = Term(operand, data["weight"], data["parameters"])
    check_parameter(term.weight, {"type": ["number", "object"]}, f"{term.field}.weight")
    if not schema["x-weights"] and term.weight != 1:
        raise InputError("this method takes no weights", field=f"{term.field}.weight")
    if not isinstance(term.parameters, dict):
        raise InputError("expected a map", field=f"{term.field}.parameters")
    for name, value in term.parameters.items():
        where = f"{term.field}.parameters.{name}"
        known = schema["properties"].get(name, {"x-per-term": False})
        if name not in _OVERRIDES or not known.get("x-per-term", True):
            raise InputError("expected a parameter that a term may override", field=where)
        check_parameter(value, schema["properties"][name], where)
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
    expect_keys(data, field, required=("kind", "name", "digest"), optional=("version",))
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
