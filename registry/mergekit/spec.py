"""The whole translation of a mergekit file, and the spec as YAML with comments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.cures import one_of
from registry.documents import Document, Path_
from registry.errors import Problem
from registry.mergekit import methods, tokens
from registry.mergekit.merge import Merge, Recipe
from registry.mergekit.models import Maps, Operand, Weights
from registry.mergekit.reading import Config, Findings, Reference, read
from registry.mergekit.settings import Settings
from schemas.schedule import count_layers

_DTYPES = ("float32", "bfloat16", "float16")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Translation:
    """A merge spec that gives the weights of a mergekit file, and what was done to get there."""

    name: str
    spec: Mapping[str, Any]
    notes: tuple[str, ...]
    source: str

    def text(self) -> str:
        """Return the spec as YAML; the notes are comments on top."""
        lines = [
            "# yaml-language-server: $schema=../../schemas/merge.schema.json",
            f"# Translated from mergekit's {self.source}.",
            *(f"# - {note}" for note in self.notes),
        ]
        return "\n".join([*lines, *_yaml(self.spec)]) + "\n"


def translate(
    document: Document,
    maps: Maps,
    *,
    name: str,
    base: str | None,
    weights: Callable[[str], Weights],
) -> tuple[Translation | None, list[Problem]]:
    """Return the translation, or None and all problems.

    `base` is the catalog's base that the command line names, `weights` tells what is known of the
    weights of a base.
    """
    findings = Findings(document)
    config = read(findings)
    if config is None:
        return None, sorted([*findings.problems, *findings.doubts])
    operands = _operands(findings, config, maps, base)
    found = _base(findings, maps, operands, base)
    known = weights(found) if found else Weights()
    if config.method != "passthrough":
        _check_layers(findings, config, known.names)
    settings = Settings(findings, known.names)
    merge = Merge(config, settings, operands, found, known.padding)
    recipe = methods.translate(merge)
    output, compute = _output(findings, config)
    is_union = tokens.translate(merge, recipe)
    if findings.problems or recipe is None or found is None:
        return None, sorted([*findings.problems, *findings.doubts])
    spec = _spec(name, found, recipe, compute, output)
    if is_union:
        spec["recipe"]["tokenizer"] = "union"
    return Translation(name, spec, tuple(findings.notes), document.file), []


def _operands(
    findings: Findings, config: Config, maps: Maps, base: str | None
) -> dict[Reference, Operand | None]:
    found: dict[Reference, Operand | None] = {}
    for one in config.inputs:
        if base and one.reference == config.base:
            found[one.reference] = Operand("base", base)
        else:
            found[one.reference] = maps.find(findings, one.reference, one.path)
    if config.base and config.base not in found:
        known = Operand("base", base) if base else None
        found[config.base] = known or maps.find(findings, config.base, config.base_path)
    return found


def _base(
    findings: Findings,
    maps: Maps,
    operands: Mapping[Reference, Operand | None],
    base: str | None,
) -> str | None:
    """Return the name of the one base of all operands, None if there is none."""
    bases = {maps.base_of(one): reference for reference, one in operands.items() if one}
    if base:
        bases = {base: next(iter(operands)), **bases}
    if len(bases) > 1:
        stand = " and ".join(f"{reference.text} on {name}" for name, reference in bases.items())
        hint = "all operands of a merge have the same base"
        findings.problem(("base_model",), f"expected one base, found {stand}", hint)
    return next(iter(bases)) if len(bases) == 1 else None


def _check_layers(findings: Findings, config: Config, names: tuple[str, ...]) -> None:
    layers = count_layers(names)
    for one in config.inputs:
        if one.layers is None:
            continue
        path: Path_ = (*one.path[:-1], "layer_range")
        whole = (0, layers) if names else (0, one.layers[1])
        if one.layers != whole:
            message = f"expected all layers, [0, {whole[1]}], found {list(one.layers)}"
            hint = "a model of other layers than its base is no merge of task vectors"
            findings.problem(path, message, hint)
        elif not names:
            findings.note(f"layer_range {list(one.layers)} is taken for all layers of the base")


def _output(findings: Findings, config: Config) -> tuple[dict[str, str], str | None]:
    """Return the output options and the precision of the arithmetic."""
    found = {}
    for key in ("dtype", "out_dtype"):
        if (value := config.data.get(key)) is not None:
            found[key] = str(value).removeprefix("torch.")
            allowed = (*_DTYPES, "float64") if key == "dtype" else _DTYPES
            if found[key] not in allowed:
                message = f"expected {one_of(allowed)}, found {found[key]}"
                findings.problem((key,), message)
    computed = found.get("dtype")
    written = found.get("out_dtype", computed)
    is_copied = config.method == "passthrough" and written == computed
    if computed in ("bfloat16", "float16") and not is_copied:
        findings.note(
            f"mergekit computes in {computed}; here in float32, rounded once, which is closer to "
            "the exact numbers and so not bit for bit the same"
        )
    if written == "float64":
        findings.problem(("dtype",), "no artifact here is float64", "write out_dtype: float32")
    compute = "float64" if computed == "float64" else None
    return ({"dtype": written} if written else {}), compute


def _spec(
    name: str, base: str, recipe: Recipe, compute: str | None, output: Mapping[str, str]
) -> dict[str, Any]:
    inside: dict[str, Any] = {"method": recipe.method}
    if recipe.parameters:
        inside["parameters"] = dict(recipe.parameters)
    for key, values in (("terms", recipe.terms), ("slices", recipe.slices)):
        if values:
            inside[key] = list(values)
    if compute:
        inside["compute"] = compute
    spec = {"kind": "merge", "name": name, "base": base, "recipe": inside}
    return {**spec, "output": dict(output)} if output else spec


def _yaml(spec: Mapping[str, Any]) -> Iterator[str]:
    for key, value in spec.items():
        if key != "recipe":
            yield f"{key}: {_flow(value)}"
            continue
        yield "recipe:"
        for name, inner in value.items():
            if name not in ("terms", "slices"):
                yield f"  {name}: {_flow(inner)}"
                continue
            yield f"  {name}:"
            for term in inner:
                yield f"    - {_flow(term)}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(one) for one in value) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value)
