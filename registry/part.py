"""The part of a catalog that a change since a revision can touch, as it was and as it is now.

What differs, everything that refers to it at any depth, and everything that those refer to: enough
to check and to plan it, however large the rest is. Knows no plan.

Whoever refers to a name must write it, so a document without the name is not even parsed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from registry import catalog, documents, git, layout, outlook
from registry.catalog import Loaded
from registry.errors import InvalidCatalog
from registry.index import Index
from registry.tree import ChosenTree, Entry, RevisionTree, Tree, WorkingTree

_SETTINGS = "catalog/registry.yaml"
_BUILDS = "catalog/builds"
_SUITE = re.compile(r"catalog/suites/([^/]+)/[^/]+")
_WORD = re.compile(rb"[a-z0-9][a-z0-9-]*")
_REFERRING = ("base", "adapter", "checkpoint", "merge", "suite")

Subject = tuple[str, str]
"""Kind and name of what documents refer to; all versions of an adapter are one."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part at the revision and now; `others` are the models outside it, none of which changed.

    Both catalogs are closed: nothing in them refers to what is left out.
    """

    before: Loaded
    now: Loaded
    others: tuple[str, ...]


def since(root: Path, index: Index, revision: str) -> Part:
    """Return what a change between a revision and the working tree can touch.

    What did not change is taken for as valid as it was there. Raises UsageError for an unknown
    revision, InvalidCatalog with all problems of all files.
    """
    old = RevisionTree(root, revision)
    was = _Side.of(old, index)
    now = _Side.of(WorkingTree(root, leave=(_BUILDS,)), index)
    # Not all of catalog/: Git would look at every record too.
    folders = sorted({"/".join(path.split("/")[:2]) for path in was.entries})
    differing = git.differing(root, old.commit, folders) & was.entries.keys()
    changed = (was.entries.keys() ^ now.entries.keys()) | differing
    now = replace(now, same=was, changed=changed)
    chosen = _references((was, now), _touched(was, now))
    found = _load(root, index, now.chosen(chosen))
    merges = {path for side in (was, now) for path in side.merges} - chosen
    others = tuple(sorted(Path(path).stem for path in merges))
    return Part(catalog.load(was.chosen(chosen), index), found, others)


def ingredients(root: Path, index: Index, revision: str) -> Loaded:
    """Return the catalog at a revision without its merges and suites."""
    tree = RevisionTree(root, revision)
    wanted = ("registry", "base", "adapter", "checkpoint")
    kinds = {entry: layout.document(entry) for entry in tree.entries()}
    entries = tuple(entry for entry, one in kinds.items() if one and one.kind in wanted)
    return catalog.load(ChosenTree(tree, entries), index)


def _load(root: Path, index: Index, tree: Tree) -> Loaded:
    try:
        return catalog.load(tree, index, is_ignored=lambda paths: git.ignored(root, paths))
    except InvalidCatalog:
        outlook.load(root, index)  # with all problems of all files
        raise  # mended in the meantime


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two trees, without build records.

    `subjects` are what its files declare or are a part of, `documents` those that are parsed. What
    is not in `changed` is read from `same`, which has it in one go.
    """

    tree: Tree
    index: Index
    entries: Mapping[str, Entry]
    subjects: Mapping[str, Subject]
    documents: Collection[str]
    same: _Side | None = None
    changed: Collection[str] = ()
    _known: dict[str, frozenset[Subject] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: Tree, index: Index) -> _Side:
        """Return the side of a tree."""
        every = (one for one in tree.entries() if not one.path.startswith(f"{_BUILDS}/"))
        entries = {one.path: one for one in every}
        found = {path: layout.document(entry) for path, entry in entries.items()}
        subjects = {
            path: (one.kind, one.place.get("name", "")) for path, one in found.items() if one
        }
        documents = frozenset(path for path in subjects if not entries[path].is_link)
        suites = {path: match[1] for path in entries if (match := _SUITE.fullmatch(path))}
        subjects |= {path: ("suite", name) for path, name in suites.items()}
        return cls(tree, index, entries, subjects, documents)

    @property
    def merges(self) -> Iterator[str]:
        """The files of merges."""
        return (path for path, (kind, _) in self.subjects.items() if kind == "merge")

    def chosen(self, paths: Collection[str]) -> ChosenTree:
        """Return those of the files that are in this tree."""
        entries = [entry for path, entry in self.entries.items() if path in paths]
        return ChosenTree(self.tree, tuple(sorted(entries, key=lambda entry: entry.path)))

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        if self.same is not None and path not in self.changed:
            return self.same.read(path)
        return self.tree.read(path)

    def referred(self, path: str) -> frozenset[Subject] | None:
        """Return what a document refers to, perhaps a little more; None if it cannot be parsed."""
        if self.same is not None and path not in self.changed:
            return self.same.referred(path)
        if path not in self._known:
            data = self.index.get_document(path, self.entries[path].identity)
            if data is None:
                document, _ = documents.parse(self.read(path), path)
                data = None if document is None else document.data
            self._known[path] = None if data is None else frozenset(_subjects(data))
        return self._known[path]


def _subjects(data: Any) -> Iterator[Subject]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            if key in _REFERRING and isinstance(value, str):
                yield key, value
            yield from _subjects(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _subjects(value)


def _touched(was: _Side, now: _Side) -> set[str]:
    """Return the changed files and the documents that refer to them, at any depth."""
    touched = set(now.changed)
    sides = (was, now)
    fresh = {side.subjects[path] for side in sides for path in touched & side.subjects.keys()}
    names = frozenset(name.encode() for side in sides for _, name in side.subjects.values())
    words = {path: _words(was.read(path), names) for path in was.documents if path not in touched}
    seen: set[Subject] = set()
    while fresh:
        seen |= fresh
        asked = {name.encode() for _, name in fresh}
        naming = [path for path, has in words.items() if has is None or not asked.isdisjoint(has)]
        referring = [path for path in naming if _refers(was.referred(path), fresh)]
        touched.update(referring)
        for path in referring:
            del words[path]
        fresh = {was.subjects[path] for path in referring} - seen
    return touched


def _words(content: bytes, names: frozenset[bytes]) -> frozenset[bytes] | None:
    """Return which of the names stand in a document; None where any may."""
    # A double-quoted text may spell any letter as an escape.
    return None if b"\\" in content else names.intersection(_WORD.findall(content))


def _refers(referred: Collection[Subject] | None, subjects: Collection[Subject]) -> bool:
    return referred is None or any(one in subjects for one in referred)


def _references(sides: Iterable[_Side], touched: Collection[str]) -> set[str]:
    """Return these files with all that they refer to, at any depth, and the settings."""
    chosen: set[str] = set()
    for side in sides:
        places: dict[Subject, list[str]] = {}
        for path, subject in side.subjects.items():
            places.setdefault(subject, []).append(path)
        reached = {path for path in (*touched, _SETTINGS) if path in side.entries}
        waiting = list(reached)
        while waiting:
            path = waiting.pop()
            wanted = {side.subjects[path]} if path in side.subjects else set()
            if path in side.documents:
                wanted |= side.referred(path) or set()
            more = {place for one in wanted for place in places.get(one, ())} - reached
            reached |= more
            waiting += more
        chosen |= reached
    return chosen
