"""The command that sets recipes of one merge beside each other: compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from registry import report, search, search_log, trials, trials_report, tuning, tuning_request
from registry.cli import trying
from registry.cli.acting import DEVICES, open_world
from registry.cli.names import MODEL
from registry.cli.session import REPORT_FORMATS, open_session, write_files
from registry.errors import RegistryError, UsageError
from registry.spec import MergeSpec

_KINDS = ("methods", "ablation", "line")


@click.command()
@click.argument("model", type=MODEL)
@click.option(
    "--by",
    "kind",
    type=click.Choice(_KINDS),
    default="methods",
    show_default=True,
    help="Every method; the steps and terms of its own; the way from its first term to its second.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=3),
    default=11,
    show_default=True,
    help="Points of a line, both ends among them.",
)
@click.option("--device", type=DEVICES)
@click.option("--format", "form", type=REPORT_FORMATS, default="text")
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of report and plots; .registry/compared/MODEL/KIND if absent.",
)
@click.pass_obj
def compare(
    directory: Path,
    model: str,
    kind: str,
    steps: int,
    device: str | None,
    form: str,
    output: Path | None,
) -> int:
    """Measure other recipes for the same ingredients on the model's suite, side by side.

    They are built in memory; nothing is stored, published or changed.
    """
    session = open_session(directory)
    spec, pinned = trying.ready(session, model)
    beside = _beside(kind, spec, tuning_request.as_model(pinned), steps)
    catalog = session.loaded.catalog
    plan = tuning.to_compare(spec, tuning_request.suite_of(catalog, spec, spec.tune))
    request = tuning_request.search_request(catalog, spec, plan, pinned, (), beside)
    folder = directory / output if output else trying.folder(session, "compared", model) / kind
    with open_world(session, device) as world:
        found = search.run(world, model, request, search.Budget(1, None))
        files = _files(model, kind, request, found)
        write_files(folder, files)
        world.log_run(search_log.of_trials(model, kind, world.commit, request, found, files))
    session.index.save()
    text = trials_report.text(model, kind, request, found)
    click.echo(trying.told(form, files, f"{text}\nreport  {folder / 'report.html'}"))
    return 0


def _beside(
    kind: str, spec: MergeSpec, start: Mapping[str, Any], steps: int
) -> Sequence[Mapping[str, Any]]:
    if kind == "methods":
        return trials.rank(start, trials.rankable())
    if kind == "line":
        if len(spec.terms) != 2:
            msg = f"{spec.name}: expected two terms for a line, found {len(spec.terms)}"
            raise UsageError(msg)
        return trials.line(start, [term.label for term in spec.terms], steps)
    found = trials.ablation(start)
    if not found:
        msg = f"{spec.name}: {spec.method} of {len(spec.terms)} terms has no step to leave out"
        raise RegistryError(msg)
    return found


def _files(
    model: str, kind: str, request: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, bytes]:
    from registry import charts, plots

    pictures = plots.draw(charts.of_trials(model, kind, request, found))
    data = trials_report.as_data(model, kind, request, found)
    return {
        "report.html": trials_report.html(model, kind, request, found, pictures).encode(),
        "report.md": trials_report.markdown(model, kind, request, found).encode(),
        "report.json": report.as_json(data).encode() + b"\n",
        **pictures,
    }
