"""The command that says whether a built model is good: quality."""

from __future__ import annotations

from pathlib import Path

import click

from registry import observation, report
from registry.cli.names import MODEL
from registry.cli.session import REPORT_FORMATS, Session, open_session, write_files
from registry.errors import RegistryError
from registry.quality import Quality
from registry.record import Evaluation


@click.command()
@click.argument("model", type=MODEL)
@click.option("--format", "form", type=REPORT_FORMATS, default="text")
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write the report with its plots into this folder.",
)
@click.pass_obj
def quality(directory: Path, model: str, form: str, output: Path | None) -> int:
    """Show what a built model gained over its base, and what it kept of its ingredients.

    Reads what `sync` measured; nothing is built or measured here.
    """
    from registry import quality_report

    session = open_session(directory)
    session.require([model], also=session.observed().recorded)
    measured, found = known_quality(session, model)
    if output is not None:
        from registry import pictures

        write_files(directory / output, pictures.of_quality(model, found, measured.verdicts))
    if form == "json":
        click.echo(report.as_json(quality_report.as_data(model, found, measured.verdicts)))
    elif form == "markdown":
        click.echo(quality_report.markdown(model, found, measured.verdicts), nl=False)
    else:
        click.echo(quality_report.text(model, found, measured.verdicts))
    return 0


def known_quality(session: Session, model: str) -> tuple[Evaluation, Quality]:
    """Return what is known of a built model; RegistryError with the cure if nothing is."""
    from registry import quality as qualities

    measured = observation.require_record(session.root, model).evaluation
    if measured is None:
        msg = f"{model} was not measured"
        raise RegistryError(msg, f"add `evaluation: {{suite: …}}` and run `registry sync {model}`")
    found = qualities.of_evaluation(measured, session.loaded.catalog.suites)
    if found is None:
        msg = f"{model}: nothing was measured beside it, or its suite has other tasks by now"
        raise RegistryError(msg, f"run `registry sync --rebuild {model}`")
    return measured, found


def quality_files(session: Session, model: str) -> dict[str, bytes]:
    """Return the report's files: Markdown, JSON, HTML and plots."""
    from registry import pictures

    measured, found = known_quality(session, model)
    return pictures.of_quality(model, found, measured.verdicts)
