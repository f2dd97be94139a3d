"""What the control plane and the numerics agree on: JSON Schemas, canonical JSON, digests, headers.

Both `registry` and `merger` import this package and it imports neither of them. Only the standard
library and `rfc8785` are used, so that asking a question costs no heavy import.

    __init__    the JSON Schemas by name, the `numerics` version, the methods, their parameters and
                the dialects
    canonical   RFC 8785 bytes of a value and their digest
    digest      tree digests of folders; which files make a model
    header      the header of one safetensors file, held to our rules, without reading a tensor
    model       names and shapes of a model folder, single file or sharded
    plugins     methods that installed packages bring, found and read without importing them
    lora        which base tensors an adapter changes, and how; lora_target is the answer's form,
                lora_config, lora_header, lora_base, lora_names, lora_fit, lora_saved and lora_ties
                are its parts
    schedule    one number per tensor from a number or a schedule
    vocabulary  the tokens of a model folder, and which tensors have a row for each of them
    stack       layers taken from models and stacked: where each tensor of the result comes from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

KINDS = ("registry", "base", "adapter", "checkpoint", "merge", "suite")
"""Kinds of a catalog's documents; each has a schema of that name."""


@cache
def load(name: str) -> dict[str, Any]:
    """Return the JSON Schema called `name` as it is shipped, for example `merge`."""
    data: dict[str, Any] = json.loads(text(name))
    return data


def text(name: str) -> str:
    """Return the text of the JSON Schema called `name`."""
    return resources.files(__package__).joinpath(f"{name}.schema.json").read_text("utf-8")


def numerics() -> int:
    """Return the version of the numbers: raised when the same request would give other bytes."""
    return _versions()["numerics"]


def evaluator() -> int:
    """Return the version of evaluation: raised when the same request would give other metrics."""
    return _versions()["evaluator"]


@cache
def _versions() -> dict[str, int]:
    source = resources.files(__package__).joinpath("numerics.json").read_text("utf-8")
    return {name: value for name, value in json.loads(source).items() if name != "$comment"}


def methods() -> dict[str, dict[str, Any]]:
    """Return the table of methods: name to the schema of its parameters with our `x-` facts.

    `x-weights` says whether terms carry weights, `x-symmetric` whether their order means nothing,
    `x-linear` (absent: no) whether the result is a sum of the deltas with fixed coefficients,
    `x-averages` (absent: no) whether weights are shares of a whole, none of them negative,
    `x-seed` whether the method uses chance, `x-terms` the least and `x-terms-max` the largest
    number of terms; `x-formula` and `x-source` are what the documentation's row says.
    """
    table: dict[str, dict[str, Any]] = load("merge")["$defs"]["methods"]
    return table


def method(name: str) -> Mapping[str, Any]:
    """Return the entry of one method, of ours or of an installed package.

    Raises KeyError for a method that is neither, PluginError for a package's broken entry.
    """
    if name in methods():
        return methods()[name]
    from schemas import plugins  # finding packages costs 20 ms

    if (plugin := plugins.find(name)) is None:
        raise KeyError(name)
    return plugin.schema


@cache
def dialects() -> dict[str, dict[str, Any]]:
    """Return the named parameter sets of other tools.

    Each has `method`, `parameters` (those that differ from ours or must not follow our defaults),
    `tool`, `version`, `tolerance` (largest absolute difference of an element, task vectors being of
    magnitude 1), `description` and `cannot` (what no parameter expresses, and why).
    """
    source = resources.files(__package__).joinpath("dialects.json").read_text("utf-8")
    return {name: facts for name, facts in json.loads(source).items() if name != "$comment"}
