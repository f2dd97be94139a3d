"""Load a catalog from a tree: which file is what, parse, validate, build the values of `spec`.

All problems of all files are collected; nothing is returned half-checked. Knows no key, no store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import schemas
from registry import crosscheck, documents, layout, readers, schema, suite_data, tuning
from registry.errors import InvalidCatalog, Problem
from registry.index import Index
from registry.source import Source
from registry.spec import Catalog, Gate, Ingredient, MergeSpec, Settings, Suite, Term
from registry.suite_files import SuiteFiles
from registry.sweep import SweptTree
from registry.tree import Entry, Tree, WorkingTree
from schemas.stack import Slice
from schemas.utility import LM_EVAL, LOWER_IS_BETTER, kind_of

_OPERANDS = ("adapter", "checkpoint", "merge")
_SOME = Settings("none")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")


@dataclass(slots=True)
class _Loading:
    """What is collected while the files are read."""

    tree: Tree
    index: Index
    entries: Mapping[str, Entry]
    problems: list[Problem] = field(default_factory=list)
    sources: dict[tuple[str, ...], Source] = field(default_factory=dict)
    ingredients: dict[tuple[str, str, int | None], Ingredient] = field(default_factory=dict)
    merges: dict[str, MergeSpec] = field(default_factory=dict)
    suites: dict[str, Suite] = field(default_factory=dict)
    settings: Settings | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A catalog with the sources of its documents, for findings that need their places."""

    catalog: Catalog
    sources: Mapping[tuple[str, ...], Source]
    files: int


def load(
    tree: Tree, index: Index, *, is_ignored: Callable[[list[str]], set[str]] = lambda _: set()
) -> Loaded:
    """Return the catalog of a tree.

    `is_ignored` answers which unexpected paths Git ignores. Raises InvalidCatalog.
    """
    state = _Loading(tree, index, {entry.path: entry for entry in tree.entries()})
    return _checked(state, _read_files(state, is_ignored))


def load_part(
    tree: SweptTree,
    index: Index,
    choose: Callable[[Catalog], Collection[str]],
    *,
    is_ignored: Callable[[list[str]], set[str]],
) -> tuple[Loaded, Collection[str]]:
    """Return all of a catalog but its merges, and of these the chosen with what they are made of.

    `choose` names merges by what else there is; only those are checked. The others are taken for
    what they were. Raises InvalidCatalog with some of the problems only.
    """
    state = _Loading(tree, index, {entry.path: entry for entry in tree.entries()})
    files = _read_files(state, is_ignored)
    chosen = choose(Catalog(_SOME, state.ingredients, {}, state.suites))
    _read_merges(state, tree, chosen)
    upstream = {name for spec in state.merges.values() for name in spec.upstream}
    _read_merges(state, tree, (upstream - state.merges.keys()) & tree.found.specs.keys())
    return _checked(state, files + len(tree.found.specs), set(chosen)), chosen


def _read_merges(state: _Loading, tree: SweptTree, names: Iterable[str]) -> None:
    files = [layout.document(tree.found.spec(name)) for name in names]
    _read_each(state, [file for file in files if file])


def _read_files(state: _Loading, is_ignored: Callable[[list[str]], set[str]]) -> int:
    """Read every document among the entries and return how many there are."""
    found, problems = layout.sort(state.entries.values(), is_ignored)
    state.problems += problems
    _read_each(state, found)
    if state.settings is None and not any(
        p.file == "catalog/registry.yaml" for p in state.problems
    ):
        hint = "run `registry init` for a new catalog, or write `kind: registry` and `name:` there"
        state.problems.append(
            Problem("catalog/registry.yaml", 0, 0, "", "expected this file, found none", hint)
        )
    return len(found)


def _checked(state: _Loading, files: int, only: Collection[str] | None = None) -> Loaded:
    """Return what was read after the cross-checks, those of merges only for `only`."""
    catalog = Catalog(state.settings or _SOME, state.ingredients, state.merges, state.suites)
    broken = {problem.file for problem in state.problems}
    state.problems += crosscheck.check(catalog, state.sources, broken, only)
    if state.problems:
        raise InvalidCatalog(state.problems, max(files, len(broken)))
    return Loaded(catalog, state.sources, files)


def _read_each(state: _Loading, files: Sequence[layout.Document]) -> None:
    known = {file.path: state.index.get_document(file.path, file.entry.identity) for file in files}
    fresh = [(file.kind, file.path) for file in files if known[file.path] is None]
    if isinstance(state.tree, WorkingTree | SweptTree) and len(fresh) >= readers.SHARE:
        known |= readers.read(state.tree.root, fresh)
    for file in files:
        _read(state, file, known[file.path])


def _read(state: _Loading, file: layout.Document, known: Any) -> None:
    source = _parse(state, file, known)
    if source is None:
        return
    state.problems += _path_problems(source, file.kind, file.place)
    build = {"registry": _settings, "merge": _merge, "suite": _suite}.get(file.kind, _ingredient)
    build(state, source, source.data)


def _parse(state: _Loading, file: layout.Document, data: Any) -> Source | None:
    if data is None:
        document, problems = documents.parse(state.tree.read(file.path), file.path)
        if document is not None and not problems:
            problems = schema.validate(document, file.kind)
        state.problems += problems
        if document is None or problems:
            return None
        data = document.data
    if not _depends_on_packages(data):
        state.index.put_document(file.path, file.entry.identity, data)
    return Source(file.path, data, state.tree)


def _depends_on_packages(data: Mapping[str, Any]) -> bool:
    # Packages come, change and go without a trace in the file.
    return data["kind"] == "merge" and data["recipe"]["method"] not in schemas.methods()


def _path_problems(source: Source, kind: str, place: Mapping[str, str]) -> list[Problem]:
    problems = []
    for key, found in place.items():
        if str(source.data[key]) != found:
            what = "file" if kind == "merge" else "folder"
            message = f"expected {found}, the name of its {what}, found {source.data[key]}"
            problems.append(source.problem((key,), message))
    if _DEVICE.fullmatch(source.data["name"]):
        message = f"expected a name that Windows allows, found {source.data['name']}"
        problems.append(source.problem(("name",), message, "choose another name"))
    return problems


def _settings(state: _Loading, source: Source, data: Mapping[str, Any]) -> None:
    default = Settings(data["name"])
    state.settings = Settings(
        name=data["name"],
        experiment=data.get("mlflow", {}).get("experiment", default.experiment),
        remote=data.get("remotes", {}).get("builds"),
        device=data.get("defaults", {}).get("device", default.device),
    )
    state.sources[("registry",)] = source


def _ingredient(state: _Loading, source: Source, data: Mapping[str, Any]) -> None:
    ingredient = Ingredient(
        kind=data["kind"],
        name=data["name"],
        version=data.get("version"),
        base=data.get("base"),
        digest=data["weights"]["digest"],
        folder=source.file.rpartition("/")[0] + "/weights",
        description=data.get("description", ""),
        recover=str(data.get("origin", {}).get("recover", "")),
        revoked=data.get("revoked", {}).get("reason", ""),
        license=data.get("license", ""),
        origin=data.get("origin", {}),
    )
    state.ingredients[ingredient.id] = ingredient
    state.sources[(ingredient.kind, ingredient.name, str(ingredient.version))] = source


def _merge(state: _Loading, source: Source, data: Mapping[str, Any]) -> None:
    recipe, evaluation = data["recipe"], data.get("evaluation", {})
    stacked, slices = _slices(recipe.get("slices", ()))
    state.merges[data["name"]] = MergeSpec(
        name=data["name"],
        base=data["base"],
        method=recipe["method"],
        parameters=_parameters(recipe),
        terms=stacked or tuple(_term(term) for term in recipe.get("terms", ())),
        seed=recipe.get("seed", schema.default_of("merge", ("recipe", "seed"))),
        compute=recipe.get("compute", schema.default_of("merge", ("recipe", "compute"))),
        output=data.get("output", {}),
        tokenizer=recipe.get("tokenizer", schema.default_of("merge", ("recipe", "tokenizer"))),
        slices=slices,
        suite=evaluation.get("suite"),
        gates={task: Gate(**gate) for task, gate in evaluation.get("gates", {}).items()},
        description=data.get("description", ""),
        owner=data.get("owner", ""),
        labels=data.get("labels", {}),
        suspend=data.get("suspend", {}).get("reason", ""),
        dialect=recipe.get("dialect"),
        tune=tuning.parse(data["tune"]) if "tune" in data else None,
    )
    state.sources[("merge", data["name"])] = source


def _parameters(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dialect's parameters and over them those that are written."""
    dialect = schemas.dialects()[recipe["dialect"]] if "dialect" in recipe else {}
    # The dialect of another method is crosscheck's finding; its parameters would only add to it.
    fits = dialect.get("method") == recipe["method"]
    return {**(dialect["parameters"] if fits else {}), **recipe.get("parameters", {})}


def _slices(data: Sequence[Mapping[str, Any]]) -> tuple[tuple[Term, ...], tuple[Slice, ...]]:
    """Return the operands of slices, each once, and the slices with the index of their operand."""
    terms: list[Term] = []
    slices: list[Slice] = []
    for one in data:
        first, last = one["layers"]
        index = None
        if any(kind in one for kind in _OPERANDS):
            term = _term(one)
            if term not in terms:
                terms.append(term)
            index = terms.index(term)
        slices.append(Slice(index, first, last))
    return tuple(terms), tuple(slices)


def _term(data: Mapping[str, Any]) -> Term:
    kind = next(kind for kind in _OPERANDS if kind in data)
    weight, parameters = data.get("weight", 1.0), data.get("parameters", {})
    return Term(kind, data[kind], data.get("version"), weight, parameters)


def _suite(state: _Loading, source: Source, data: Mapping[str, Any]) -> None:
    folder = source.file.rpartition("/")[0]
    files = SuiteFiles(state.tree, state.index, state.entries, source, folder)
    tasks = tuple(_task(number, task, files) for number, task in enumerate(data["tasks"]))
    state.problems += files.problems
    digest = suite_data.digest(tasks, files.hashes)
    lower = frozenset(task["name"] for task in data["tasks"] if _is_lower_better(task))
    name, minutes = data["name"], data.get("minutes")
    state.suites[name] = Suite(name, folder, tasks, digest, lower, minutes)
    state.sources[("suite", data["name"])] = source


def _is_lower_better(task: Mapping[str, Any]) -> bool:
    return kind_of(task) in LOWER_IS_BETTER or not task.get("higher_is_better", True)


def _task(number: int, data: Mapping[str, Any], files: SuiteFiles) -> dict[str, Any]:
    """Return a task with every default, its files taken."""
    options = dict(data.get("options", {}))
    head = {"name": data["name"], "metric": data["metric"]}
    if data["metric"] == LM_EVAL:
        return {**head, "options": options, **files.take_lm_eval(number, options)}
    files.take(("tasks", number, "data"), data["data"], as_lines=True)
    for option in ("database", "schema"):
        if name := options.get(option):
            files.take(("tasks", number, "options", option), name, as_lines=False)
    return {
        **head,
        "data": data["data"],
        "max_new_tokens": data.get("max_new_tokens", 48),
        "system": data.get("system"),
        "options": options,
    }
