"""Commands that look into weights before anything is merged: analyze, recommend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from registry import analysis, operands, report
from registry.analysis import Question
from registry.cli.acting import DEVICES, open_world
from registry.cli.session import FORMATS, Session, open_session
from registry.errors import UsageError
from registry.record import BuildRecord


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="MODEL|ADAPTER...")
@click.option(
    "--density",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Share kept by a random drop, for the conflict expected after it.",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write pictures (PNG and SVG) into this folder.",
)
@click.option("--device", type=DEVICES)
@click.option("--format", "form", type=FORMATS, default="text")
@click.pass_obj
def analyze(
    directory: Path,
    names: tuple[str, ...],
    density: float,
    plots: Path | None,
    device: str | None,
    form: str,
) -> int:
    """Show how terms agree, and what a merge leaves of each of them.

    Names of merges: the terms of each, and how much of them survives in the result, built or not.
    Names of adapters and checkpoints of one base (sql@1, or sql if it has one version): they
    among themselves.
    """
    session = open_session(directory)
    answers = _answers(session, _questions(session, names), density, device)
    if form == "json":
        click.echo(report.as_json({"analyses": answers}))
    else:
        from registry import analysis_report

        click.echo("\n\n".join(analysis_report.text(answer) for answer in answers))
    if plots:
        _draw(answers, plots if plots.is_absolute() else directory / plots)
    return 0


def _questions(session: Session, names: Sequence[str]) -> list[Question]:
    catalog = session.loaded.catalog
    found = operands.find(names, catalog)
    merges = [name for kind, name, _ in found if kind == "merge"]
    if not merges:
        return [analysis.of_operands(catalog, [catalog.ingredients[one] for one in found])]
    if len(merges) < len(found):
        msg = "expected merges, or adapters and checkpoints, found both"
        raise UsageError(msg, "name merges alone to see what is left of their terms")
    digests = {
        name: one.built.model_digest
        for name, one in session.observed().recorded.items()
        if isinstance(one, BuildRecord) and one.built
    }
    return [analysis.of_merge(session.declared[name], digests) for name in merges]


def _answers(
    session: Session, questions: Iterable[Question], density: float, device: str | None
) -> list[dict[str, Any]]:
    with open_world(session, device) as world:
        answers = [analysis.look(world, one, density=density) for one in questions]
    session.index.save()
    return answers


def _draw(answers: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write the pictures of every analysis; each has a folder of its own if there are several."""
    from registry import charts, plots

    count = 0
    for answer in answers:
        place = folder / answer["model"] if len(answers) > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        for name, data in plots.draw(charts.of_analysis(answer)).items():
            (place / name).write_bytes(data)
            count += 1
    click.echo(f"{count} pictures in {folder}", err=True)
