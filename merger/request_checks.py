"""Plain data of a request, held to what the methods' schemas allow. Knows no recipe.

Every function raises InputError with the field's path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from merger.errors import InputError


def check_parameter(value: Any, schema: Mapping[str, Any], field: str) -> None:
    """Raise InputError unless a value is what its entry in the methods' schema allows."""
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
    expect_keys(value, field, required=("layers",), optional=("embeddings", "head", "rules"))
    layers, rules = value["layers"], value.get("rules", [])
    if not isinstance(layers, list) or not layers:
        raise InputError("expected a list of numbers, not empty", field=f"{field}.layers")
    found = [(f"{field}.layers[{index}]", number) for index, number in enumerate(layers)]
    found += [(f"{field}.{key}", value[key]) for key in ("embeddings", "head") if key in value]
    if not isinstance(rules, list):
        raise InputError("expected a list of rules", field=f"{field}.rules")
    for index, rule in enumerate(rules):
        expect_keys(rule, f"{field}.rules[{index}]", required=("match", "value"))
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


def expect_keys(
    data: Any, field: str, *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    """Raise InputError unless `data` is a map with these keys and no others."""
    if not isinstance(data, dict):
        raise InputError("expected a map", field=field)
    for key in required:
        if key not in data:
            raise InputError("expected this field, found none", field=f"{field}.{key}".lstrip("."))
    for key in data:
        if key not in required and key not in optional:
            raise InputError("this field is not understood", field=f"{field}.{key}".lstrip("."))


def expect_equal(value: Any, expected: Any, field: str) -> None:
    """Raise InputError unless a value is the expected one; true is not 1."""
    if value != expected or isinstance(value, bool):
        raise InputError(f"expected {expected!r}, found {value!r}", field=field)
