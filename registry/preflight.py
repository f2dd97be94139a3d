"""Check the weights that are at hand before anybody waits for a GPU: digests and headers only.

Turns findings in weights into problems at the YAML file that declares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from registry import crosscheck, output_rules, vocabulary, weights
from registry.catalog import Loaded
from registry.errors import Problem
from registry.finding import Finding
from registry.index import Index
from registry.source import Source
from registry.spec import Catalog, Ingredient, IngredientId, MergeSpec, Term
from schemas.digest import TreeError
from schemas.header import HeaderError
from schemas.lora import CONFIG
from schemas.model import ModelError, ModelHeader, read_config, read_model
from schemas.schedule import count_layers

_UNITE = "write `tokenizer: union` in this recipe, or leave the term out"
_NO_STACK = "a stack has the base's tokens: leave it out"


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
        found = list(_digest(index, one, folder)) if with_digests else []
        found += _findings(index, one, root, bases)
        problems += [_problem(source, finding) for finding in found]
    problems += _other_vocabularies(root, loaded, index, bases)
    problems += _impossible_unions(root, loaded, bases)
    problems += _impossible_layers(root, loaded, bases)
    problems += _impossible_sums(root, loaded, bases)
    problems += _inexact_adapters(root, loaded)
    problems += _stale_schemas(root)
    return Preflight(tuple(problems), tuple(absent))


def _digest(index: Index, one: Ingredient, folder: Path) -> Iterator[Finding]:
    if finding := weights.check_digest(folder, one.digest, index):
        yield finding


def _findings(
    index: Index, one: Ingredient, root: Path, bases: Mapping[str, Ingredient]
) -> list[Finding]:
    base = bases.get(one.base or "")
    return _remembered(index, root, one, base, [one.kind], partial(_headers, one, root, base))


def _remembered(
    index: Index,
    root: Path,
    one: Ingredient,
    base: Ingredient | None,
    what: list[str],
    check: Callable[[], list[Finding]],
) -> list[Finding]:
    """Return what `check` finds of an ingredient on its base, from the index if nothing changed."""
    if base is None:
        context: list[Any] = [*what, "no base at hand"]
    elif (facts := _signature(index, root / base.folder)) is not None:
        context = [*what, facts]
    else:  # the base changed a moment ago, so nothing that depends on it is remembered
        return check()
    return weights.remembered(index, root / one.folder, context, check)


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
    return weights.check_checkpoint(folder, header)


def _read(folder: Path) -> ModelHeader | None:
    try:
        return read_model(folder)
    except (ModelError, HeaderError, OSError):
        return None  # told as the base's own problem


def _problem(source: Source, finding: Finding) -> Problem:
    place = ("weights",) if finding.subject else ("weights", "digest")
    message = ": ".join(part for part in (finding.subject, finding.message) if part)
    return source.problem(place, message, finding.hint)


def _other_vocabularies(
    root: Path, loaded: Loaded, index: Index, bases: Mapping[str, Ingredient]
) -> Iterator[Problem]:
    """Yield operands of other tokens in merges that do not unite them with the base's."""
    catalog = loaded.catalog

    def look(one: Ingredient | None) -> list[Finding]:
        base = bases.get(one.base or "") if one else None
        if one is None or base is None or not (root / one.folder).is_dir():
            return []
        folders = root / one.folder, root / base.folder
        check = partial(weights.check_vocabulary, *folders, one.label)
        return _remembered(index, root, one, base, ["vocabulary"], check)

    others = {one.id: look(one) for one in catalog.ingredients.values() if one.kind == "checkpoint"}
    for spec in catalog.merges.values():
        if spec.tokenizer == "union":
            continue
        source = loaded.sources[("merge", spec.name)]
        hint = _NO_STACK if spec.slices else _UNITE
        for number, term in enumerate(spec.terms):
            for finding in _other_tokens(term, catalog, others):
                place = (*spec.place(number), term.kind)
                yield source.problem(place, finding.message, hint)


def _other_tokens(
    term: Term, catalog: Catalog, others: Mapping[IngredientId, list[Finding]]
) -> list[Finding]:
    """Return what a term's tokens differ in; a union has those of all that it unites."""
    if term.kind != "merge":
        return others.get(term.id, [])
    spec = catalog.merges.get(term.name)
    if spec is None or spec.tokenizer != "union":
        return []
    # What is not a union below has the base's tokens, or a problem of its own.
    return [one for inner in spec.terms for one in _other_tokens(inner, catalog, others)]


def _impossible_unions(
    root: Path, loaded: Loaded, bases: Mapping[str, Ingredient]
) -> Iterator[Problem]:
    """Yield unions onto a base whose own vocabulary cannot be told."""
    wanted = [spec for spec in loaded.catalog.merges.values() if spec.tokenizer == "union"]
    for spec, header in _with_headers(root, bases, wanted):
        source = loaded.sources[("merge", spec.name)]
        for why in vocabulary.no_union(header, root / bases[spec.base].folder):
            yield source.problem(("recipe", "tokenizer"), why)


def _impossible_layers(
    root: Path, loaded: Loaded, bases: Mapping[str, Ingredient]
) -> Iterator[Problem]:
    """Yield slices beyond the layers of their operand, and stacks where no stack fits."""
    stacks = {spec.name for spec in loaded.catalog.merges.values() if spec.slices}
    wanted = [
        spec
        for spec in loaded.catalog.merges.values()
        if spec.slices or stacks.intersection(spec.upstream)
    ]
    for spec, header in _with_headers(root, bases, wanted):
        source = loaded.sources[("merge", spec.name)]
        layers = count_layers(header.tensors)
        yield from crosscheck.layer_bounds(loaded.catalog, spec, source, layers)


def _impossible_sums(
    root: Path, loaded: Loaded, bases: Mapping[str, Ingredient]
) -> Iterator[Problem]:
    """Yield recipes whose scheduled weights sum to 0 at some tensor of the base."""
    wanted = [
        spec
        for spec in loaded.catalog.merges.values()
        if crosscheck.needs_positive_weights(spec)
        and any(isinstance(term.weight, Mapping) for term in spec.terms)
    ]
    for spec, header in _with_headers(root, bases, wanted):
        names = sorted(header.tensors)
        source = loaded.sources[("merge", spec.name)]
        yield from crosscheck.zero_sum(spec, source, names, layers=count_layers(names))


def _with_headers(
    root: Path, bases: Mapping[str, Ingredient], specs: Iterable[MergeSpec]
) -> Iterator[tuple[MergeSpec, ModelHeader]]:
    """Yield merges with the headers of their base, where its bytes are at hand; each read once."""
    headers: dict[str, ModelHeader | None] = {}
    for spec in specs:
        if spec.base in bases and spec.base not in headers:
            headers[spec.base] = _read(root / bases[spec.base].folder)
        if header := headers.get(spec.base):
            yield spec, header


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
