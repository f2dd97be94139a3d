"""Check the weights that are at hand before anybody waits for a GPU: digests and headers only.

Turns findings in weights into problems at the YAML file that declares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import crosscheck, output_rules, weights
from registry.catalog import Loaded
from registry.errors import Problem
from registry.index import Index
from registry.source import Source
from registry.spec import Ingredient
from registry.weights import Finding
from schemas.digest import TreeError
from schemas.header import HeaderError
from schemas.lora import CONFIG
from schemas.model import ModelError, ModelHeader, read_config, read_model
from schemas.schedule import count_layers


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found, and what could not be looked at: label and how to recover it."""

    problems: tuple[Problem, ...] = ()
    absent: tuple[tuple[str, str], ...] = ()


def check(root: Path, loaded: Loaded, index: Index, *, with_digests: bool = True) -> Preflight:
    """Return the problems of all weights at hand, and of recipes that they make impossible."""
    catalog = loaded.catalog
    problems: list[Problem] = []
    absent: list[tuple[str, str]] = []
    bases: dict[str, Ingredient] = {}
    # Bases first: the others are compared with them.
    for one in sorted(catalog.ingredients.values(), key=lambda one: one.kind != "base"):
        folder = root / one.folder
        if not folder.is_dir():
            has_pointer = (folder.parent / "weights.dvc").is_file()
            recover = one.recover or ("registry sync fetches them" if has_pointer else "")
            absent.append((one.label, recover))
            continue
        if one.kind == "base":
            bases[one.name] = one
        source = loaded.sources[(one.kind, one.name, str(one.version))]
        found = _findings(index, one, root, bases, with_digests=with_digests)
        problems += [_problem(source, finding) for finding in found]
    problems += _impossible_sums(root, loaded, bases)
    problems += _inexact_adapters(root, loaded)
    problems += _stale_schemas(root)
    return Preflight(tuple(problems), tuple(absent))


def _findings(
    index: Index,
    one: Ingredient,
    root: Path,
    bases: Mapping[str, Ingredient],
    *,
    with_digests: bool,
) -> Iterator[Finding]:
    folder = root / one.folder
    if with_digests and (finding := weights.check_digest(folder, one.digest, index)):
        yield finding
    base = bases.get(one.base or "")
    if base is None:
        context: list[Any] = [one.kind, "no base at hand"]
    elif (facts := _signature(index, root / base.folder)) is not None:
        context = [one.kind, facts]
    else:  # the base changed a moment ago, so nothing that depends on it is remembered
        yield from _headers(one, root, base)
        return
    yield from weights.remembered(index, folder, context, lambda: _headers(one, root, base))


def _signature(index: Index, folder: Path) -> list[Any] | None:
    try:
        return index.folder_signature(folder)
    except (TreeError, OSError):
        return None  # told as the base's own problem


def _headers(one: Ingredient, root: Path, base: Ingredient | None) -> list[Finding]:
    folder = root / one.folder
    if one.kind == "base":
        return weights.check_base(folder)
    base_folder = root / base.folder if base else None
    header = _read(base_folder) if base_folder else None
    if one.kind == "adapter":
        return weights.check_adapter(folder, header, base_folder)
    return weights.check_checkpoint(folder, header, base_folder)


def _read(folder: Path) -> ModelHeader | None:
    try:
        return read_model(folder)
    except (ModelError, HeaderError, OSError):
        return None  # told as the base's own problem


def _problem(source: Source, finding: Finding) -> Problem:
    place = ("weights",) if finding.subject else ("weights", "digest")
    message = ": ".join(part for part in (finding.subject, finding.message) if part)
    return source.problem(place, message, finding.hint)


def _impossible_sums(
    root: Path, loaded: Loaded, bases: Mapping[str, Ingredient]
) -> Iterator[Problem]:
    """Yield recipes whose scheduled weights sum to 0 at some tensor of the base."""
    headers: dict[str, ModelHeader | None] = {}
    for spec in loaded.catalog.merges.values():
        has_schedule = any(isinstance(term.weight, Mapping) for term in spec.terms)
        if not (has_schedule and spec.base in bases and crosscheck.needs_positive_weights(spec)):
            continue
        if spec.base not in headers:
            headers[spec.base] = _read(root / bases[spec.base].folder)
        if header := headers[spec.base]:
            names = sorted(header.tensors)
            source = loaded.sources[("merge", spec.name)]
            yield from crosscheck.zero_sum(spec, source, names, layers=count_layers(names))


def _inexact_adapters(root: Path, loaded: Loaded) -> Iterator[Problem]:
    """Yield specs of exact adapters that a term's adapter_config.json makes impossible."""

    def read(one: Ingredient) -> Mapping[str, Any] | None:
        try:
            return read_config(root / one.folder, CONFIG)
        except (ModelError, OSError):
            return None  # not at hand, or told as the adapter's own problem

    ingredients = loaded.catalog.ingredients
    for spec in loaded.catalog.merges.values():
        source = loaded.sources[("merge", spec.name)]
        yield from output_rules.check_adapters(spec, source, ingredients, read)


def _stale_schemas(root: Path) -> Iterator[Problem]:
    """Warn where a catalog's copies of our schemas, which are for editors, are not ours."""
    import schemas

    for path in sorted((root / "schemas").glob("*.schema.json")):
        name = path.name.removesuffix(".schema.json")
        if name in schemas.KINDS and path.read_text("utf-8") != schemas.text(name):
            message = "differs from the installed schema, which is the one that judges"
            hint = "editors read this copy; run `registry init .` to renew it"
            file = path.relative_to(root).as_posix()
            yield Problem(file, 0, 0, "", message, hint, is_warning=True)
