"""Commands that turn other tools' files into specs: import mergekit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from registry import catalog, documents, outlook, schema
from registry.catalog import Loaded
from registry.cli.session import NAME, find_root, refuse_existing, write_output
from registry.errors import InvalidCatalog, Problem, UsageError, did_you_mean
from registry.index import Index
from registry.mergekit import Maps, Translation, Weights, parse_map, translate
from registry.tree import Entry, Tree, WorkingTree
from schemas import vocabulary
from schemas.header import HeaderError
from schemas.model import ModelError, read_model


@click.group("import")
def importing() -> None:
    """Turn a file of another tool into a merge spec."""


@importing.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", help="Name of the model; written to catalog/merges/NAME.yaml unless -o.")
@click.option("--base", help="The catalog's base that base_model means.")
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="PATH=WHAT",
    help="What a model's path means: base:NAME, adapter:NAME@VERSION, checkpoint:NAME@VERSION or "
    "merge:NAME. Without it: what has the name of the path's last part.",
)
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file."
)
@click.pass_obj
def mergekit(
    directory: Path,
    file: Path,
    name: str | None,
    base: str | None,
    maps: tuple[str, ...],
    output: Path | None,
) -> int:
    """Translate mergekit's FILE into a spec that gives the same weights, or say what prevents it.

    The spec goes to standard output without --name and -o. Exit code 1 with every problem, if no
    spec of ours gives these weights.
    """
    root = find_root(directory)
    loaded = outlook.load(root, Index(root))
    wanted = name or re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")
    if not NAME.fullmatch(wanted):
        msg = f"expected a name of a-z, 0-9 and -, found {wanted}"
        raise UsageError(msg, "give one with --name")
    bases = [one.name for one in loaded.catalog.ingredients.values() if one.kind == "base"]
    if base is not None and base not in bases:
        msg = f"no base {base}"
        raise UsageError(msg, did_you_mean(base, bases))
    target = output or (root / f"catalog/merges/{name}.yaml" if name else None)
    if target is not None:
        refuse_existing(target)
    known = Maps(loaded.catalog, parse_map(maps, loaded.catalog))
    text = _translated(root, loaded, file, known, wanted, base)
    if target is None:
        click.echo(text, nl=False)
    else:
        write_output(target, text)
        click.echo(f"{wanted}  {target}")
    return 0


def _translated(
    root: Path, loaded: Loaded, file: Path, maps: Maps, name: str, base: str | None
) -> str:
    """Return the spec's text. Raises InvalidCatalog with all problems of the file."""
    document, problems = documents.parse(file.read_bytes(), str(file))
    translation: Translation | None = None
    if document is not None and not problems:
        translation, problems = translate(
            document, maps, name=name, base=base, weights=_weights(root, loaded)
        )
    if translation is None:
        raise InvalidCatalog(problems, 1)
    text = translation.text()
    _check(root, name, text)
    return text


def _weights(root: Path, loaded: Loaded) -> Callable[[str], Weights]:
    def known(base: str) -> Weights:
        folder = root / loaded.catalog.base(base).folder
        try:
            header = read_model(folder)
            tokens, rows = vocabulary.read_tokens(folder), vocabulary.rows(header.config)
        except (ModelError, HeaderError, OSError):
            return Weights()  # not at hand: what needs the layers is a problem then
        if tokens is None or rows is None:
            return Weights(tuple(header.tensors))
        return Weights(tuple(header.tensors), rows - vocabulary.last_row(tokens))

    return known


@dataclass(frozen=True, slots=True)
class _Proposed:
    """The working tree with one file more (or in place of the one there)."""

    tree: Tree
    path: str
    text: bytes

    @property
    def root(self) -> Path:
        return self.tree.root

    def entries(self) -> tuple[Entry, ...]:
        others = [one for one in self.tree.entries() if one.path != self.path]
        # No index may remember it: nothing lies there.
        return tuple(sorted([*others, Entry(self.path, "proposed")], key=lambda one: one.path))

    def read(self, path: str) -> bytes:
        return self.text if path == self.path else self.tree.read(path)


def _check(root: Path, name: str, text: str) -> None:
    """Refuse a translation that `validate` would refuse."""
    path = f"catalog/merges/{name}.yaml"
    document, problems = documents.parse(text.encode(), path)
    if document is not None and not problems:
        problems = schema.validate(document, "merge")
    if not problems:
        proposed = _Proposed(WorkingTree(root), path, text.encode())
        try:
            # What Git ignores is not looked at: the catalog itself was loaded a moment ago.
            catalog.load(proposed, Index(root), is_ignored=set)
        except InvalidCatalog as error:
            problems = list(error.problems)
    if problems:
        raise InvalidCatalog([_as_translated(one) for one in problems], 1)


def _as_translated(problem: Problem) -> Problem:
    message = f"as translated, {problem.message}"
    return Problem(problem.file, 0, 0, problem.field, message, problem.hint)
