"""What every command starts from: the repository, its loaded catalog, the plan of the moment."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from registry import catalog, git, observation, tracking_place
from registry import plan as plans
from registry.catalog import Loaded
from registry.errors import Problem, RegistryError, UsageError, did_you_mean
from registry.index import Index
from registry.plan import Observed, Options, Plan
from registry.request import Declaration, declare
from registry.store import Store
from registry.tree import RevisionTree, WorkingTree

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
FORMATS = click.Choice(["text", "json"])


def refuse_existing(file: Path) -> None:
    """Raise RegistryError if a file that a command is to write stands there already."""
    if file.exists():
        msg = f"{file} stands there already"
        raise RegistryError(msg, "choose another place, or remove it")


def write_output(file: Path, text: str) -> None:
    """Write what an option like -o asks for; UsageError where that is no place to write to."""
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        msg = f"cannot write {file}: {error.strerror}"
        raise UsageError(msg, "make its folder first, or choose another place") from error


@dataclass(frozen=True, slots=True)
class Session:
    """A valid catalog in its repository."""

    root: Path
    index: Index
    loaded: Loaded
    declared: dict[str, Declaration]
    store: Store

    def observed(self, *, with_push: bool = False) -> Observed:
        """Return what is recorded and present now."""
        uri = tracking_place.default_uri(self.root)
        known = tracking_place.known_store(self.root, uri)
        return observation.observe(self.root, self.store, known, with_push=with_push)

    def plan(
        self,
        options: Options | None = None,
        *,
        with_push: bool = False,
        observed: Observed | None = None,
    ) -> Plan:
        """Return the plan of everything that is declared, as things are now or as `observed`."""
        return plans.make(self.declared, observed or self.observed(with_push=with_push), options)

    def require(self, models: Iterable[str], *, also: Collection[str] = ()) -> set[str]:
        """Return the models; UsageError with the nearest name if one is not declared."""
        for model in models:
            if model not in self.declared and model not in also:
                msg = f"no model {model}"
                raise UsageError(msg, did_you_mean(model, [*self.declared, *also]))
        return set(models)

    def with_upstream(self, models: Collection[str]) -> set[str]:
        """Return these models and all merges that they are made of."""
        found = set(models)
        for one in reversed(self.declared.values()):
            if one.model in found:
                found |= set(one.upstream)
        return found


def find_root(directory: Path) -> Path:
    """Return the root of the repository that `directory` lies in."""
    return git.root(directory)


def open_session(directory: Path) -> Session:
    """Return the session of the catalog that `directory` lies in.

    Raises InvalidCatalog as `registry validate` shows it.
    """
    root = find_root(directory)
    index = Index(root)
    loaded = load(root, index)
    index.save()
    store = Store(root, loaded.catalog.settings.remote)
    return Session(root, index, loaded, declare(loaded.catalog), store)


def load(root: Path, index: Index) -> Loaded:
    """Return the catalog of the working tree; tracked symlinks and submodules are refused too."""
    loaded = catalog.load(
        WorkingTree(root), index, is_ignored=lambda paths: git.ignored(root, paths)
    )
    modes = git.tracked_modes(root, "catalog")
    links = [path for path, mode in modes.items() if mode in (git.SYMLINK, git.SUBMODULE)]
    if links:
        from registry.errors import InvalidCatalog

        message = "expected a regular file, found a tracked symlink or submodule"
        problems = [Problem(path, 0, 0, "", message, f"git rm --cached {path}") for path in links]
        raise InvalidCatalog(problems, loaded.files)
    return loaded


def load_revision(root: Path, index: Index, revision: str) -> Loaded:
    """Return the catalog as it stands at a Git revision."""
    return catalog.load(RevisionTree(root, revision), index)
