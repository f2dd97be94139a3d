"""Commands that make catalog files: init, add."""

from __future__ import annotations

from pathlib import Path

import click

from registry import report
from registry.errors import RegistryError, UsageError

_KINDS = click.Choice(["base", "adapter", "checkpoint"])


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--example", is_flag=True, help="Add a tiny base, adapters and merges to try it on.")
@click.pass_obj
def init(directory: Path, folder: Path, *, example: bool) -> int:
    """Make a catalog repository in DIR: git, dvc, schemas, CI workflows. Existing files stay."""
    from registry import founding

    target = folder if folder.is_absolute() else directory / folder
    has_catalog = (target / "catalog" / "merges").exists()
    if example and has_catalog:
        msg = f"{folder} has merges already"
        raise RegistryError(msg, "choose a new folder for the example")
    written = founding.found(target)
    if example:
        from registry import example as examples

        written += examples.write(target)
    for path in written:
        click.echo(f"  {path}")
    click.echo(f"{len(written)} files written; next: cd {folder} && registry plan")
    return 0


@click.command()
@click.argument("kind", type=_KINDS)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--name", required=True, help="Name in the catalog.")
@click.option("--version", type=click.IntRange(1), help="Default: the next one.")
@click.option("--base", help="Base that it was trained on. Default: the only one.")
@click.pass_obj
def add(
    directory: Path, kind: str, path: Path, name: str, version: int | None, base: str | None
) -> int:
    """Add the weights in PATH to the catalog: copied, checked, with digest and pointer."""
    from registry import intake
    from registry.cli.session import NAME, open_session

    if not NAME.fullmatch(name):
        msg = f"expected a name of a-z, 0-9 and -, found {name}"
        raise UsageError(msg)
    session = open_session(directory)
    catalog = session.loaded.catalog
    wanted = intake.completed(intake.Wanted(kind, name, version, base), catalog)
    taken = intake.take(session.root, catalog, session.store, path.absolute(), wanted)
    if taken.left:
        click.echo(f"left behind, not needed: {', '.join(taken.left)}", err=True)
    where = "behind a DVC pointer" if taken.has_pointer else "in Git"
    click.echo(f"{taken.label}  {report.short(taken.digest)}  {taken.file}, weights {where}")
    return 0
