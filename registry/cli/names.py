"""What a command line can name, and how the shell completes it: from file names and refs alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from registry import git
from registry.errors import RegistryError


def _root(ctx: click.Context) -> Path | None:
    try:
        return git.root(ctx.find_root().params.get("directory") or Path())
    except RegistryError:
        return None  # a shell that completes has no place for an error


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(set(names)) if name.startswith(incomplete)]


class _Model(click.ParamType[str]):
    """A model: declared, or recorded only."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the models whose name begins so."""
        if (root := _root(ctx)) is None:
            return []
        files = [*root.glob("catalog/merges/*.yaml"), *root.glob("catalog/builds/*.json")]
        return _items((file.stem for file in files), incomplete)


class _Revision(click.ParamType[str]):
    """A revision of the catalog's repository."""

    name = "revision"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the branches and tags whose name begins so."""
        root = _root(ctx)
        return [] if root is None else _items(git.ref_names(root), incomplete)


MODEL = _Model()
REVISION = _Revision()


def of_kind(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of the kind that the command's argument `kind` says."""
    kind = str(ctx.params.get("kind", ""))
    if kind == "merge":
        return MODEL.shell_complete(ctx, _, incomplete)
    if (root := _root(ctx)) is None:
        return []
    if kind == "base":
        files = root.glob("catalog/bases/*/base.yaml")
        return _items((file.parent.name for file in files), incomplete)
    folders = (file.parent for file in root.glob(f"catalog/{kind}s/*/*/{kind}.yaml"))
    return _items((f"{one.parent.name}@{one.name}" for one in folders), incomplete)
