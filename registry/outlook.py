"""A catalog and its plan from what changed since the last plan: the rest is taken from `settled`.

A model is settled while its spec, record and stored objects are what they were by their stats,
everything that its recipe names is what it was, and all models that it is made of are settled too.
All others are read, checked and planned as if nothing were remembered. A catalog with a problem is
loaded as a whole, so what is said of it does not depend on what is remembered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import schemas
from registry import catalog, git, keys, observation, plan, report, sealed, settled, sweep
from registry.catalog import Loaded
from registry.errors import InvalidCatalog, Problem
from registry.index import Index
from registry.plan import Observed, Options, Plan, Settled
from registry.record import BuildRecord, UnreadableRecord
from registry.request import Declaration, declare
from registry.settled import Row, StoredObject, Table
from registry.spec import Catalog, Ingredient, MergeSpec, in_order
from registry.store import Store
from registry.sweep import Sweep, SweptTree
from registry.tree import WorkingTree

_OURS = "catalog"


def load(root: Path, index: Index) -> Loaded:
    """Return the catalog of the working tree; tracked symlinks and submodules are refused too."""
    loaded = catalog.load(
        WorkingTree(root), index, is_ignored=lambda paths: git.ignored(root, paths)
    )
    _refuse_links(root, loaded.files)
    return loaded


def _refuse_links(root: Path, files: int) -> None:
    message = "expected a regular file, found a tracked symlink or submodule"
    links = git.tracked_links(root, _OURS)
    problems = [Problem(path, 0, 0, "", message, f"git rm --cached {path}") for path in links]
    if problems:
        raise InvalidCatalog(problems, files)


@dataclass(frozen=True)
class Outlook:
    """A valid catalog: `part` holds what is not settled, `rows` what is."""

    root: Path
    version: str
    found: Sweep
    table: Table
    part: Loaded
    rows: Mapping[str, Row]
    changed: Collection[str]
    tracked: bytes

    @cached_property
    def upstream(self) -> dict[str, tuple[str, ...]]:
        """Every declared model with the merges that it is made of, each after those."""
        known = {name: row.upstream for name, row in self.rows.items()}
        specs = self.part.catalog.merges
        known |= {name: specs[name].upstream for name in self.changed}
        return {name: known[name] for name in in_order(known)}

    @cached_property
    def recorded(self) -> Collection[str]:
        """The models that have a record, readable or not."""
        return self.found.records.keys()

    def observed(
        self, store: Store, tracking_store: str | None, *, with_push: bool = False
    ) -> Observed:
        """Return what is recorded and present of the models that are not settled."""
        models = [name for name in self.found.records if name not in self.rows]
        seen = observation.observe(
            self.root, store, tracking_store, with_push=with_push, models=models
        )
        if not with_push:
            return seen
        waiting = [name for name, row in self.rows.items() if not store.pushed(row.key)]
        return replace(seen, unpushed=(*seen.unpushed, *waiting))

    def plan(self, observed: Observed, options: Options) -> Plan:
        """Return the plan of everything, and remember what it finds to be right."""
        fresh = declare(self.part.catalog, (name for name in self.upstream if name in self.changed))
        declared: dict[str, Declaration | Settled] = {}
        for name in self.upstream:
            row = self.rows.get(name)
            declared[name] = Settled(row.key, row.digest, row.store) if row else fresh[name]
        made = plan.make(declared, observed, options)
        self._remember(made, observed)
        return made

    def live(self, observed: Observed) -> dict[str, report.Live]:
        """Return what is live of every model, settled or not."""
        told = self.table.told if self.rows else {}
        live = {name: report.Live(row.digest, *told[name]) for name, row in self.rows.items()}
        return live | report.live(observed.recorded)

    def _remember(self, made: Plan, observed: Observed) -> None:
        is_at_rest = partial(sweep.is_at_rest, looked_ns=self.found.looked_ns)
        tracked = self.tracked if is_at_rest(self.tracked) else b""
        learnt = {
            row.model: row
            for row in self._learnt(made, observed)
            if all(map(is_at_rest, (row.spec, row.record, row.entry)))
        }
        if not learnt and tracked == self.table.tracked:
            return
        told = {name: self.table.told[name] for name in self.rows}
        told |= {name: _told(observed.recorded[name]) for name in learnt}
        rows = [*self.rows.values(), *learnt.values()]
        settled.write(self.root, self.version, rows, told, tracked)

    def _learnt(self, made: Plan, observed: Observed) -> Iterator[Row]:
        """Yield the changed models that turned out to be settled."""
        assert isinstance(observed.present, observation.StoreLookup)
        specs = self.part.catalog.merges
        for change in made.changes:
            one = observed.recorded.get(change.model)
            if change.model not in self.changed or not plan.is_settled(change):
                continue
            spec = specs[change.model]
            seen = observed.present.seen.get(change.key or "")
            # A package comes and goes without a trace in any file.
            if seen and isinstance(one, BuildRecord) and spec.method in schemas.methods():
                yield self._row(spec, one, *seen)

    def _row(self, spec: MergeSpec, one: BuildRecord, entry: bytes, artifact: keys.Artifact) -> Row:
        assert one.built is not None
        return Row(
            model=spec.name,
            spec=self.found.specs[spec.name],
            record=self.found.records[spec.name],
            entry=entry,
            key=artifact.key,
            digest=one.built.model_digest,
            store=one.mlflow.store if one.mlflow else None,
            upstream=spec.upstream,
            needs=tuple(_needs(self.part.catalog, spec)),
            objects=tuple(keys.objects(artifact).items()),
        )


def look(root: Path, index: Index) -> Outlook:
    """Return the outlook of the catalog at `root`. Raises InvalidCatalog as a whole load does."""
    version = sealed.code_version()
    table = settled.read(root, version)
    tracked = git_index(root)
    found = sweep.look(root)
    cache = keys.cache_folder(root)
    rows: dict[str, Row] = {}

    def choose(others: Catalog) -> Collection[str]:
        rows.update(_still_settled(table, found, others, observation.read_altered(root)))
        for name in _elsewhere(cache, rows, table.objects):
            del rows[name]
        _spread(rows)
        return sorted(found.specs.keys() - rows.keys())

    try:
        part, changed = catalog.load_part(
            SweptTree(root, found), index, choose, is_ignored=lambda paths: git.ignored(root, paths)
        )
        if not tracked or tracked != table.tracked:
            _refuse_links(root, part.files)
    except InvalidCatalog:
        load(root, index)  # with all problems of all files
        raise  # mended in the meantime
    return Outlook(root, version, found, table, part, rows, frozenset(changed), tracked)


def git_index(root: Path) -> bytes:
    """Return the packed stat of Git's own index, which says what is tracked; empty without."""
    try:
        return sweep.packed((sealed.git_folder(root) / "index").stat())
    except OSError:
        return b""


def _still_settled(
    table: Table, found: Sweep, others: Catalog, altered: Collection[str]
) -> Iterator[tuple[str, Row]]:
    """Yield the rows whose spec, record and ingredients are what they were."""
    now = {_ingredient(one) for one in others.ingredients.values()}
    gone = table.needs - now - {_suite(name, one.digest) for name, one in others.suites.items()}
    specs, records = found.specs, found.records
    for name, row in table.rows.items():
        if specs.get(name) != row.spec or records.get(name) != row.record or name in altered:
            continue
        if not gone or gone.isdisjoint(row.needs):
            yield name, row


def _elsewhere(cache: Path, rows: Mapping[str, Row], objects: Iterable[StoredObject]) -> list[str]:
    """Return the models of which something in the store is not what it was.

    `objects` are those of all rows, each once, and may be more.
    """
    if not cache.is_dir():
        return list(rows)
    folder = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
    try:
        missing = _missing(folder, objects)
        return [
            name
            for name, row in rows.items()
            if _stat(keys.entry_name(row.key), folder) != row.entry
            or (missing and not missing.isdisjoint(row.objects))
        ]
    finally:
        os.close(folder)


def _missing(folder: int, objects: Iterable[StoredObject]) -> set[StoredObject]:
    """Return the objects that do not lie below an open folder with their size."""
    missing = set()
    for one in objects:
        name, size = one
        try:
            # As keys.object_name has it, written out: this runs some times for each model.
            if os.stat(f"files/md5/{name[:2]}/{name[2:]}", dir_fd=folder).st_size == size:
                continue
        except OSError:
            pass
        missing.add(one)
    return missing


def _stat(path: str, folder: int) -> bytes:
    try:
        return sweep.packed(os.stat(path, dir_fd=folder))
    except OSError:
        return b""


def _spread(rows: dict[str, Row]) -> None:
    """Remove the rows that are made of models which are not settled, at any depth."""
    users: dict[str, list[str]] = {}
    for name, row in rows.items():
        for upstream in row.upstream:
            users.setdefault(upstream, []).append(name)
    waiting = [name for name in users if name not in rows]
    while waiting:
        waiting += [name for name in users.get(waiting.pop(), ()) if rows.pop(name, None)]


def _needs(others: Catalog, spec: MergeSpec) -> Iterator[str]:
    """Yield what a merge depends on that is no merge."""
    yield _ingredient(others.base(spec.base))
    for term in spec.terms:
        if term.kind != "merge":
            yield _ingredient(others.ingredients[term.id])
    if spec.suite:
        yield _suite(spec.suite, others.suites[spec.suite].digest)


def _ingredient(one: Ingredient) -> str:
    return json.dumps([one.kind, one.name, one.version, one.base, one.digest, one.revoked])


def _suite(name: str, digest: str) -> str:
    return json.dumps(["suite", name, digest])


def _told(one: BuildRecord | UnreadableRecord) -> list[Any]:
    assert isinstance(one, BuildRecord)
    live = report.live_of(one)
    return [live.method, live.expression, dict(live.metrics)]
