"""What every command starts from: the repository, its loaded catalog, the plan of the moment."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from registry import catalog, git, observation, outlook, tracking_place
from registry import plan as plans
from registry.catalog import Loaded
from registry.errors import RegistryError, UsageError, did_you_mean
from registry.index import Index
from registry.outlook import Outlook
from registry.plan import Observed, Options, Plan
from registry.report import Live
from registry.request import Declaration, declare
from registry.store import Store
from registry.tree import RevisionTree

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
FORMATS = click.Choice(["text", "json"])
REPORT_FORMATS = click.Choice(["text", "json", "markdown"])


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


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a report's files into a folder, made if need be; UsageError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        msg = f"cannot write to {folder}: {error.strerror}"
        raise UsageError(msg, "choose another folder") from error


@dataclass(frozen=True)
class Session:
    """A valid catalog in its repository. What a command does not ask for is not read."""

    root: Path
    index: Index
    store: Store
    outlook: Outlook

    @cached_property
    def loaded(self) -> Loaded:
        """The whole catalog, with the sources of its documents."""
        if not self.outlook.rows:
            return self.outlook.part
        loaded = outlook.load(self.root, self.index)
        self.index.save()
        return loaded

    @cached_property
    def declared(self) -> dict[str, Declaration]:
        """Every declared model, each after those that it is made of."""
        return declare(self.loaded.catalog)

    @property
    def upstream(self) -> Mapping[str, Collection[str]]:
        """Every declared model with the merges that it is made of, each after those."""
        return self.outlook.upstream

    @property
    def recorded(self) -> Collection[str]:
        """The models that have a record, readable or not."""
        return self.outlook.recorded

    def observed(self, *, with_push: bool = False) -> Observed:
        """Return what is recorded and present now."""
        known = self._tracking_store()
        return observation.observe(self.root, self.store, known, with_push=with_push)

    def _tracking_store(self) -> str | None:
        return tracking_place.known_store(self.root, tracking_place.default_uri(self.root))

    def plan(self, options: Options | None = None, *, with_push: bool = False) -> Plan:
        """Return the plan of everything that is declared, as things are."""
        wanted = options or Options()
        if wanted.rebuild:
            return plans.make(self.declared, self.observed(with_push=with_push), wanted)
        seen = self.outlook.observed(self.store, self._tracking_store(), with_push=with_push)
        return self.outlook.plan(seen, wanted)

    def status(self) -> tuple[Plan, dict[str, Live]]:
        """Return the plan of everything, and what is live of every model."""
        seen = self.outlook.observed(self.store, self._tracking_store())
        return self.outlook.plan(seen, Options()), self.outlook.live(seen)

    def require(self, models: Iterable[str], *, also: Collection[str] = ()) -> set[str]:
        """Return the models; UsageError with the nearest name if one is not declared."""
        return require_known(models, {*self.upstream, *also})

    def with_upstream(self, models: Collection[str]) -> set[str]:
        """Return these models and all merges that they are made of."""
        return with_upstream(self.upstream, models)


def require_known(models: Iterable[str], known: Collection[str]) -> set[str]:
    """Return the models; UsageError with the nearest name if one is not known."""
    for model in models:
        if model not in known:
            msg = f"no model {model}"
            raise UsageError(msg, did_you_mean(model, known))
    return set(models)


def with_upstream(upstream: Mapping[str, Collection[str]], models: Collection[str]) -> set[str]:
    """Return these models and all merges that they are made of; `upstream` has those first."""
    found = set(models)
    for model in reversed(list(upstream)):
        if model in found:
            found |= set(upstream[model])
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
    try:
        seen = outlook.look(root, index)
    finally:
        index.save()
    return Session(root, index, Store(root, seen.part.catalog.settings.remote), seen)


def load_revision(root: Path, index: Index, revision: str) -> Loaded:
    """Return the catalog as it stands at a Git revision."""
    return catalog.load(RevisionTree(root, revision), index)
