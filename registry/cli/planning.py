"""The command `plan`: what sync would do, or what a pull request changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from registry import report
from registry.cli.names import MODEL, REVISION
from registry.cli.session import (
    REPORT_FORMATS,
    find_root,
    open_session,
    require_known,
    with_upstream,
    write_output,
)
from registry.errors import EXIT_CHANGES_PENDING
from registry.index import Index
from registry.plan import Options, Plan
from registry.request import Declaration, declare
from registry.spec import Catalog


@click.command()
@click.argument("models", nargs=-1, type=MODEL, metavar="[MODEL]...")
@click.option(
    "--against",
    type=REVISION,
    metavar="REV",
    help="Plan what changed since REV instead of what is stale.",
)
@click.option("--format", "form", type=REPORT_FORMATS, default="text")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if changes are pending.")
@click.option("--push", is_flag=True, help="Show what `sync --push` would push.")
@click.option("--prune", is_flag=True, help="Show what `sync --prune` would remove.")
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Save for sync."
)
@click.pass_obj
def plan(
    directory: Path,
    models: tuple[str, ...],
    against: str | None,
    form: str,
    *,
    detailed_exitcode: bool,
    push: bool,
    prune: bool,
    output: Path | None,
) -> int:
    """Show what sync would do, model by model, and why. Reads no weights."""
    if against:
        planned = _since(find_root(directory), against)
    else:
        planned = _now(directory, Options(prune=prune), with_push=push)
    made = planned.plan
    if models:
        known = {change.model for change in made.changes}
        made = made.narrowed(with_upstream(planned.upstream, require_known(models, known)))
    if form == "markdown":
        click.echo(_comment(planned, made), nl=False)
    else:
        click.echo(report.plan_text(made) if form == "text" else report.as_json(made.as_data()))
    if output:
        write_output(output, report.as_json(made.as_data()) + "\n")
    is_pending = any(change.is_pending for change in made.changes)
    return EXIT_CHANGES_PENDING if detailed_exitcode and is_pending else 0


@dataclass(frozen=True, slots=True)
class _Planned:
    """A plan, and what its rows are about.

    `now` returns the catalog, or the part of it that can have changed, and its declarations; where
    the plan is of what changed since the revision `since`, `before` is that catalog there.
    """

    root: Path
    plan: Plan
    upstream: Mapping[str, Collection[str]]
    now: Callable[[], tuple[Catalog, dict[str, Declaration]]]
    before: Catalog | None = None
    since: str = ""


def _now(directory: Path, options: Options, *, with_push: bool) -> _Planned:
    session = open_session(directory)
    made = session.plan(options, with_push=with_push)
    return _Planned(
        session.root, made, session.upstream, lambda: (session.loaded.catalog, session.declared)
    )


def _since(root: Path, revision: str) -> _Planned:
    """Return the plan as if everything declared at a revision were built, and nothing else."""
    from registry import comparison, part

    index = Index(root)
    found = part.since(root, index, revision)
    index.save()
    before, now = found.before.catalog, found.now.catalog
    declared = declare(now)
    made = comparison.plan_since(declare(before), declared, found.others)
    upstream = {name: one.upstream for name, one in declared.items()}
    return _Planned(root, made, upstream, lambda: (now, declared), before, revision)


def _comment(planned: _Planned, made: Plan) -> str:
    from registry import comment, comparison, estimate, observation

    catalog, declared = planned.now()
    sizes = {
        one.label: size
        for one in catalog.ingredients.values()
        if (size := observation.weights_bytes(planned.root, one)) is not None
    }
    shown = [change.model for change in made.changes if change.is_pending]
    before = observation.builds_before(planned.root, shown)
    affected: tuple[comparison.Affected, ...] = ()
    if planned.before:
        affected = comparison.affected(planned.before, catalog, declared.values())
    return comment.text(
        comment.Review(
            plan=made,
            declared=declared,
            estimates=estimate.estimates(declared.values(), sizes, before),
            affected=affected,
            since=planned.since,
        )
    )
