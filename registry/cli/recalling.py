"""The command `recall`: take an ingredient back, and what is made of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from registry.cli import names
from registry.cli.session import open_session
from registry.errors import UsageError, did_you_mean
from registry.spec import Ingredient
from registry.tree import WorkingTree


@click.command()
@click.argument("kind", type=click.Choice(["adapter", "checkpoint", "base"]))
@click.argument("reference", metavar="NAME@VERSION", shell_complete=names.of_kind)
@click.option("--reason", required=True, help="Why; kept in the catalog, shown by every plan.")
@click.pass_obj
def recall(directory: Path, kind: str, reference: str, reason: str) -> int:
    """Propose an edit that revokes an ingredient and rebuilds models without it.

    The edit is a diff for `git apply`; nothing is changed. What cannot do without the ingredient
    is left as it is: the next sync takes it, and all that is made of it, from publication.
    """
    from registry import recall as recalls

    session = open_session(directory)
    if not reason.strip():
        msg = "expected a reason, found nothing"
        raise UsageError(msg, 'say why: --reason "trained on withdrawn data"')
    one = _find(session.loaded.catalog.ingredients.values(), kind, reference)
    made = recalls.propose(session.loaded, one, reason, WorkingTree(session.root), session.index)
    click.echo(made.diff, nl=False)
    for model in made.rebuilt:
        click.echo(f"{model}: rebuilt without {one.label}", err=True)
    for model, why in sorted(made.impossible.items()):
        click.echo(f"{model}: unpublished: cannot do without it: {why}", err=True)
    count, left = len(made.rebuilt), len(made.impossible)
    click.echo(f"{count} rebuilt without it, {left} unpublished; apply with: git apply", err=True)
    return 0


def _find(known: Iterable[Ingredient], kind: str, reference: str) -> Ingredient:
    found = {one.label.partition(" ")[2]: one for one in known if one.kind == kind}
    if reference not in found:
        msg = f"no {kind} {reference}"
        raise UsageError(msg, did_you_mean(reference, found))
    return found[reference]
