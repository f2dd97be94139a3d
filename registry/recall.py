"""Take an ingredient back: an edit that revokes it, and rebuilds without it what can do without.

Proposes texts; writes nothing. A model that cannot do without it is left as it is: revoked, it is
taken from publication by the next sync, and so is everything made of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from registry import catalog, spec_edit
from registry.catalog import Loaded
from registry.documents import Path_
from registry.errors import InvalidCatalog
from registry.index import Index
from registry.source import Source
from registry.spec import Ingredient, MergeSpec
from registry.tree import EditedTree, Tree


@dataclass(frozen=True, slots=True)
class Proposal:
    """The edit by file, as text before and after; the models that it rebuilds.

    `impossible` says of the other models that contain the ingredient directly why it cannot.
    """

    edits: Mapping[str, tuple[str, str]]
    rebuilt: tuple[str, ...]
    impossible: Mapping[str, str]

    @property
    def diff(self) -> str:
        """The edit as a diff for `git apply`."""
        return "".join(
            spec_edit.diff(before, after, file) for file, (before, after) in self.edits.items()
        )


def propose(loaded: Loaded, one: Ingredient, reason: str, tree: Tree, index: Index) -> Proposal:
    """Return the edit that revokes an ingredient and takes it out of each recipe that allows it.

    `tree` has all files of the catalog.
    """
    source = loaded.sources[(one.kind, one.name, str(one.version))]
    edits: dict[str, tuple[str, str]] = {}
    if not one.revoked:
        text = _text(source)
        # Quoted as JSON is: a reason may have any character in it.
        told = {"reason": json.dumps(reason, ensure_ascii=False)}
        edits[source.file] = text, spec_edit.edited(text, {("revoked",): told})
    impossible: dict[str, str] = {}
    users: dict[str, str] = {}
    for spec in loaded.catalog.merges.values():
        source = loaded.sources[("merge", spec.name)]
        if why := _why_not(spec, one):
            impossible[spec.name] = why
        elif places := [*_places(spec, one, source)]:
            users[source.file] = spec.name
            edits[source.file] = _text(source), _without(_text(source), places)
    while problems := _problems(tree, edits, index):
        for file, message in problems.items():
            del edits[file]
            impossible[users[file]] = message
    rebuilt = sorted(name for file, name in users.items() if file in edits)
    return Proposal(edits, tuple(rebuilt), impossible)


def _why_not(spec: MergeSpec, one: Ingredient) -> str:
    """Return why no edit of a spec can leave an ingredient out; nothing if one may."""
    if one.kind == "base":
        return "it is the base" if spec.base == one.name else ""
    used = {term.id for term in spec.terms}
    if used == {one.id}:
        return "nothing else is in it"
    return "its layers are stacked" if spec.slices and one.id in used else ""


def _text(source: Source) -> str:
    return source.tree.read(source.file).decode()


def _places(spec: MergeSpec, one: Ingredient, source: Source) -> Iterator[Path_]:
    """Yield where a spec names an ingredient: its term, and the range of its weight in a search."""
    for number, term in enumerate(spec.terms):
        if term.id == one.id:
            yield "recipe", "terms", number
    searched = source.data.get("tune", {}).get("weights", {})
    others = {term.name for term in spec.terms if term.id != one.id}
    for name in (f"{one.name}@{one.version}", *({one.name} - others)):
        if name in searched:
            yield "tune", "weights", name


def _without(text: str, places: list[Path_]) -> str:
    for place in places:
        text = spec_edit.without(text, place)
    return text


def _problems(tree: Tree, edits: Mapping[str, tuple[str, str]], index: Index) -> dict[str, str]:
    """Return what would be wrong with the edited files, the first problem of each."""
    texts = {file: after.encode() for file, (_, after) in edits.items()}
    try:
        catalog.load(EditedTree(tree, texts), index)
    except InvalidCatalog as error:
        found: dict[str, str] = {}
        for problem in error.problems:
            found.setdefault(problem.file, f"{problem.field}: {problem.message}")
        if found.keys() <= edits.keys():
            return found
        raise
    return {}
