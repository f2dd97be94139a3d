"""Methods of merging that installed packages bring: found by their metadata, read as data.

A package announces a method by an entry point of the group `merge_registry.methods`, whose name is
the method's and whose value names the function (`package.module:function`), and ships the entry of
the methods table as `NAME.method.json` beside the package's `__init__.py`. Neither is imported
here: a catalog can be validated and planned without running a line of the package. Its name and
version go into the build key.

The entry has the form of those in the merge schema (`$defs.methods`), and says with `x-unit` what
the function is given: `block`, any run of elements, or `tensor`, one tensor as a whole. A numeric
parameter may be written as a plain `{"type": "number", "default": …, "minimum": …}`: it takes a
schedule too, like every number of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

GROUP = "merge_registry.methods"
_FACTS: Mapping[str, type] = {
    "description": str,
    "x-formula": str,
    "x-source": str,
    "x-weights": bool,
    "x-symmetric": bool,
    "x-terms": int,
    "x-unit": str,
    "properties": dict,
}
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class PluginError(ValueError):
    """A package announces a method but does not bring what belongs to it."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A method of an installed package: its entry of the table, and the function by its name."""

    method: str
    package: str
    version: str
    function: str
    schema: Mapping[str, Any]

    @property
    def pinned(self) -> dict[str, str]:
        """What a build request says of it."""
        return {"name": self.package, "version": self.version}


@cache
def find(method: str) -> Plugin | None:
    """Return the installed package's method of this name, None if no package announces it.

    Raises PluginError if two packages announce it, or its entry is missing or malformed.
    """
    from importlib import metadata  # 25 ms, and most catalogs ask for no package

    found = list(metadata.entry_points(group=GROUP, name=method))
    if not found:
        return None
    packages = sorted({point.dist.name for point in found if point.dist is not None})
    if len(packages) != 1:
        msg = f"expected one package with the method {method}, found {len(packages)}: {packages}"
        raise PluginError(msg)
    point = found[0]
    assert point.dist is not None
    schema = _read(method, packages[0], point.value)
    return Plugin(method, packages[0], point.dist.version, point.value, schema)


def extend(merge_schema: Mapping[str, Any], plugin: Plugin) -> dict[str, Any]:
    """Return the merge schema with the method of a package in its table."""
    schema: dict[str, Any] = json.loads(json.dumps(merge_schema))
    method = plugin.method
    schema["$defs"]["methods"][method] = dict(plugin.schema)
    recipe = schema["properties"]["recipe"]
    recipe["properties"]["method"]["enum"].append(method)
    reference = {"$ref": f"#/$defs/methods/{method}"}
    condition = {"properties": {"method": {"const": method}}, "required": ["method"]}
    recipe["allOf"].append({"if": condition, "then": {"properties": {"parameters": reference}}})
    return schema


def _read(method: str, package: str, function: str) -> dict[str, Any]:
    file = f"{method}.method.json"
    top = function.partition(":")[0].partition(".")[0]
    # Finding a top-level package runs none of its code; importing it would.
    spec = util.find_spec(top)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = next((Path(one, file) for one in folders if Path(one, file).is_file()), None)
    if path is None:
        msg = f"package {package}: expected the file {file} beside {top}/__init__.py, found none"
        raise PluginError(msg)
    try:
        entry = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        msg = f"package {package}: {file}: expected a JSON object"
        raise PluginError(msg) from error
    _check(entry, f"package {package}: {file}")
    parameters = {name: _expanded(one) for name, one in entry["properties"].items()}
    closed = {"type": "object", "additionalProperties": False}
    return {**entry, "x-seed": False, "properties": parameters, **closed}


def _check(entry: Any, where: str) -> None:
    if not isinstance(entry, dict):
        msg = f"{where}: expected a JSON object"
        raise PluginError(msg)
    for fact, wanted in _FACTS.items():
        if type(entry.get(fact)) is not wanted:
            msg = f"{where}: {fact}: expected a {wanted.__name__}, found {entry.get(fact)!r}"
            raise PluginError(msg)
    if entry["x-unit"] not in ("block", "tensor"):
        msg = f"{where}: x-unit: expected block or tensor, found {entry['x-unit']!r}"
        raise PluginError(msg)
    if entry.get("x-seed"):
        msg = f"{where}: x-seed: a method of a package may not use chance"
        raise PluginError(msg)
    for name, parameter in entry["properties"].items():
        if not isinstance(parameter, dict) or "default" not in parameter:
            msg = f"{where}: properties.{name}: expected a parameter with a default"
            raise PluginError(msg)


def _expanded(parameter: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain number as a number or schedule, everything else as it is."""
    if parameter.get("type") != "number":
        return dict(parameter)
    limits = {name: parameter[name] for name in _LIMITS if name in parameter}
    rest = {name: value for name, value in parameter.items() if name not in _LIMITS}
    schedule = {"if": {"type": "object"}, "then": {"$ref": "#/$defs/schedule"}, "else": limits}
    ranged = {"x-range": limits} if limits else {}
    return {**rest, "type": ["number", "object"], **schedule, **ranged}
