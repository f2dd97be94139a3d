"""Commands that go up and down the graph of models and ingredients: lineage, impact."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from registry import ancestry, report
from registry.cli import names
from registry.cli.names import MODEL
from registry.cli.session import Session, open_session, write_output
from registry.errors import UsageError
from registry.impact import KINDS
from registry.lineage import Known

GRAPH_FORMATS = click.Choice(["text", "json", "svg", "html"])
_OUTPUT = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("model", type=MODEL)
@click.option("--format", "form", type=GRAPH_FORMATS, default="text")
@click.option("-o", "output", type=_OUTPUT, help="Write it into this file instead.")
@click.pass_obj
def lineage(directory: Path, model: str, form: str, output: Path | None) -> int:
    """Show the ingredients of a model at any depth, as built (as declared if it is not)."""
    from registry import graph_picture, lineage_report
    from registry.lineage import ingredients

    session = open_session(directory)
    session.require([model], also=session.recorded)
    live = _live(session, {model})
    if model in live.unread:
        click.echo(f"{model}: its record cannot be read; this is what is declared", err=True)
    known = live if model in live.requests else _declared(session)
    if model not in known.requests:
        msg = f"{model} has no readable record and is not declared"
        raise UsageError(msg)
    graph = ingredients(model, known)
    catalog = session.loaded.catalog
    if form == "json":
        told = report.as_json(lineage_report.as_data(graph, catalog))
    elif form == "svg":
        told = graph_picture.draw(graph, f"{model}: lineage", focus=graph.nodes[-1])
    elif form == "html":
        told = lineage_report.html(graph, catalog)
    else:
        told = lineage_report.text(graph)
    _tell(told, directory, output)
    return 0


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=names.of_kind)
@click.option("--format", "form", type=GRAPH_FORMATS, default="text")
@click.option("-o", "output", type=_OUTPUT, help="Write it into this file instead.")
@click.pass_obj
def impact(directory: Path, kind: str, name: str, form: str, output: Path | None) -> int:
    """Show which models contain an ingredient, at any depth: with which sign, by which way.

    Both what is live and what is declared are looked at. Without a version: every version.
    """
    from registry import impact as impacts
    from registry import impact_report

    session = open_session(directory)
    world = impacts.look(_live(session), _declared(session))
    targets = impacts.find(kind, name, world, ancestry.given(session.loaded.catalog))
    found = [impacts.impact(node, world) for node in targets]
    unknown = impacts.unknown(world)
    if form == "json":
        told = report.as_json(impact_report.as_data(found, unknown))
    elif form == "svg":
        told = impact_report.drawing(found)
    elif form == "html":
        told = impact_report.html(found, unknown)
    else:
        told = impact_report.text(found, unknown)
    _tell(told, directory, output)
    return 0


def _live(session: Session, models: Collection[str] | None = None) -> Known:
    recorded = session.observed().recorded
    return ancestry.live(recorded, session.loaded.catalog, session.store.cache, models)


def _declared(session: Session) -> Known:
    return ancestry.declared(session.declared.values(), session.loaded.catalog)


def _tell(told: str, directory: Path, output: Path | None) -> None:
    if output:
        write_output(directory / output, told.rstrip("\n") + "\n")
    else:
        click.echo(told.rstrip("\n"))
