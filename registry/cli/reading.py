"""Commands that change nothing: validate, status, show, explain, diff."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from registry import report
from registry.cli.names import MODEL, REVISION
from registry.cli.session import (
    FORMATS,
    Session,
    find_root,
    load_revision,
    open_session,
)
from registry.errors import InvalidCatalog
from registry.index import Index
from registry.record import BuildRecord
from registry.request import declare


@click.command()
@click.option(
    "--against",
    type=REVISION,
    metavar="REV",
    help="Also refuse changes of versions that stand at REV.",
)
@click.option("--no-weights", is_flag=True, help="Skip the digests of weights; read headers only.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "gitlab"]),
    default="text",
    help="The last two are shown by that host on the lines of a pull request.",
)
@click.pass_obj
def validate(directory: Path, against: str | None, no_weights: bool, form: str) -> int:  # noqa: FBT001
    """Check every file of the catalog: form, references, weights at hand."""
    from registry import validation
    from registry.validation import Validation

    root = find_root(directory)
    index = Index(root)
    try:
        found = validation.check(root, index, with_digests=not no_weights, against=against)
    except InvalidCatalog as error:
        found = Validation(error.files, tuple(error.problems), ())
    finally:
        index.save()
    told = InvalidCatalog(found.problems, found.files)
    if form != "text":
        click.echo(_validation(form, told, found.absent))
        return 0 if found.is_valid else told.exit_code
    if not found.is_valid:
        raise told
    if told.problems:
        click.echo(report.problems_text(told.problems), err=True)
    for label, hint in found.absent:
        click.echo(f"{label}: not at hand" + (f" (recover: {hint})" if hint else ""))
    click.echo(f"{told.files} file{'' if told.files == 1 else 's'}, no problems")
    return 0


def _validation(form: str, told: InvalidCatalog, absent: Iterable[tuple[str, str]]) -> str:
    if form != "json":
        from registry import annotations

        write = {"github": annotations.github, "gitlab": annotations.gitlab}[form]
        return write(told.problems)
    rows = [report.problem_data(problem) for problem in told.problems]
    missing = [{"what": label, "recover": hint} for label, hint in absent]
    return report.as_json({"files": told.files, "problems": rows, "not_at_hand": missing})


@click.command()
@click.option("--format", "form", type=FORMATS, default="text")
@click.pass_obj
def status(directory: Path, form: str) -> int:
    """Show every model: what is live of it, and what is not as declared."""
    session = open_session(directory)
    made, live = session.status()
    rows = report.status_rows(made, live)
    if form == "json":
        click.echo(report.as_json({"models": rows}))
        return 0
    head = ("model", "method", "expression", "metrics", "digest", "state")
    cells = [
        (
            row["model"],
            row["method"] or "-",
            row["expression"] or "-",
            report.metrics_text(row["metrics"]),
            report.short(row["model_digest"] or ""),
            row["state"],
        )
        for row in rows
    ]
    if cells:
        click.echo("\n".join(report.table(cells, head=head)))
    click.echo(report.summary_text(made))
    return 0


@click.command()
@click.argument("model", type=MODEL)
@click.option("--format", "form", type=FORMATS, default="text")
@click.pass_obj
def show(directory: Path, model: str, form: str) -> int:
    """Show what is inside a model: expression, operands, digests, metrics, where it is logged."""
    from registry import keys, shown

    session = open_session(directory)
    known = _known(session, model)
    told = provenance = None
    if known and known.built:
        told = keys.read_report(session.store.cache, known.built.key)
        provenance = keys.provenance_digest(session.store.cache, known.built.key)
    data = shown.model(
        session.loaded.catalog, session.declared.get(model), known, model, told, provenance
    )
    click.echo(report.as_json(data) if form == "json" else shown.text(data))
    return 0


def _known(session: Session, model: str) -> BuildRecord | None:
    recorded = session.observed().recorded
    session.require([model], also=recorded)
    found = recorded.get(model)
    return found if isinstance(found, BuildRecord) else None


@click.command()
@click.argument("model", type=MODEL)
@click.pass_obj
def explain(directory: Path, model: str) -> int:
    """Say why a model is stale, or that it is not, and what a gate said the last time."""
    session = open_session(directory)
    known = _known(session, model)
    change = next(change for change in session.plan().changes if change.model == model)
    state = change.action.value if change.action.value != "none" else "kept"
    if not change.reasons:
        click.echo(f"{model}: up to date")
    for reason in change.reasons:
        click.echo(f"{model}: {state}: {report.reason_text(reason)}")
    if known and known.rejected:
        for verdict in known.rejected.verdicts:
            click.echo(f"  last attempt: {verdict['text']}")
    return 0


@click.command()
@click.argument("model", type=MODEL)
@click.argument("revision", type=REVISION, metavar="REV")
@click.option("--format", "form", type=FORMATS, default="text")
@click.pass_obj
def diff(directory: Path, model: str, revision: str, form: str) -> int:
    """Show what changed in a model's recipe since a revision, field by field."""
    from registry import comparison

    session = open_session(directory)
    before = declare(load_revision(session.root, session.index, revision).catalog)
    session.require([model], also=before)
    made = comparison.plan_since(before, session.declared).narrowed({model})
    reasons = made.changes[0].reasons if made.changes else ()
    if form == "json":
        rows = [reason.as_data() for reason in reasons]
        click.echo(report.as_json({"model": model, "since": revision, "differences": rows}))
        return 0
    for reason in reasons:
        click.echo(f"{model}: {report.reason_text(reason)}")
    count = len(reasons)
    click.echo(f"{count} difference{'' if count == 1 else 's'} since {revision}")
    return 0
