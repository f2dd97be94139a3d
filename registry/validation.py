"""Whether a catalog and the weights at hand are valid; remembered while no file of them changes.

Only a catalog without errors is remembered, in a sealed file of `.registry/`: an accelerator, which
may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from hashlib import blake2b
from pathlib import Path

import schemas
from registry import crosscheck, layout, outlook, part, preflight, sealed, sweep
from registry.catalog import Loaded
from registry.errors import Problem
from registry.index import Index, signature
from registry.sweep import Sweep
from schemas.digest import TreeError

FILE = "validated"


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found in so many documents; `absent` are weights that are not at hand."""

    files: int
    problems: tuple[Problem, ...]
    absent: tuple[tuple[str, str], ...]

    @property
    def is_valid(self) -> bool:
        """Whether there is nothing worse than a warning."""
        return all(problem.is_warning for problem in self.problems)


def check(
    root: Path, index: Index, *, with_digests: bool, against: str | None = None
) -> Validation:
    """Return what is to be said of the catalog at `root`.

    With the revision `against`, versions that stand there may not have changed. Raises
    InvalidCatalog if the documents alone are wrong.
    """
    version = sealed.code_version()
    facts = None if against else _facts(root, index, with_digests=with_digests)
    if facts and (known := _read(root, version, facts)):
        return known
    loaded = outlook.load(root, index)
    found = preflight.check(root, loaded, index, with_digests=with_digests)
    problems = list(found.problems)
    if against:
        before = part.ingredients(root, index, against)
        problems += crosscheck.immutable(loaded.catalog, loaded.sources, before.catalog)
    told = Validation(loaded.files, tuple(problems), found.absent)
    if facts and told.is_valid and not _uses_packages(loaded):
        _write(root, version, facts, told)
    return told


def _uses_packages(loaded: Loaded) -> bool:
    # Packages come, change and go without a trace in any file of the catalog.
    known = schemas.methods()
    return any(spec.method not in known for spec in loaded.catalog.merges.values())


def _facts(root: Path, index: Index, *, with_digests: bool) -> str | None:
    """Return what changes with every file that validation reads, None if nothing is sure."""
    tracked = outlook.git_index(root)
    found = sweep.look(root)
    packs = [tracked, *found.specs.values()]
    if not all(sweep.is_at_rest(pack, found.looked_ns) for pack in packs):
        return None
    digest = blake2b(f"{with_digests}".encode(), digest_size=32)
    digest.update(json.dumps(list(found.specs)).encode() + b"".join(packs))
    try:
        for fact in (*_others(found), *_weights(root, index, found), *_copies(root)):
            if fact is None:
                return None
            digest.update(f"{fact}\0".encode("utf-8", "surrogateescape"))
    except (TreeError, OSError):
        return None
    return digest.hexdigest()


def _others(found: Sweep) -> Iterator[str | None]:
    """Yield the facts of all files but specs and records."""
    unexpected: list[str] = []

    def note(paths: list[str]) -> set[str]:
        unexpected.extend(paths)
        return set(paths)

    _, problems = layout.sort(found.others, note)
    if unexpected or problems:  # what Git ignores may change without a change in the catalog
        yield None
    for entry in found.others:
        facts = signature(entry.identity)
        yield None if facts is None else f"{entry.path}\0{facts}"


def _weights(root: Path, index: Index, found: Sweep) -> Iterator[str | None]:
    """Yield the facts of the weights of every ingredient."""
    for entry in found.others:
        one = layout.document(entry)
        if one is None or one.kind not in ("base", "adapter", "checkpoint"):
            continue
        folder = (root / entry.path).parent / "weights"
        if not folder.is_dir():
            yield "absent"
        else:
            facts = index.folder_signature(folder)
            yield None if facts is None else str(facts)


def _copies(root: Path) -> Iterator[str | None]:
    """Yield the facts of the catalog's copies of our schemas."""
    for path in sorted((root / "schemas").glob("*.schema.json")):
        facts = signature(path.stat())
        yield None if facts is None else f"{path.name}\0{facts}"


def _read(root: Path, version: str, facts: str) -> Validation | None:
    data = json.loads(sealed.read(root, FILE, version) or b"{}")
    if data.get("facts") != facts:
        return None
    problems = tuple(Problem(*one) for one in data["problems"])
    return Validation(data["files"], problems, tuple((what, how) for what, how in data["absent"]))


def _write(root: Path, version: str, facts: str, told: Validation) -> None:
    problems = [astuple(problem) for problem in told.problems]
    data = {"facts": facts, "files": told.files, "problems": problems, "absent": told.absent}
    try:
        sealed.write(root, FILE, version, json.dumps(data).encode())
    except (OSError, ValueError):  # read-only or full: the next one looks again
        return
