"""The command that looks for better numbers: tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from registry import report, search, search_log, spec_edit, tuning, tuning_report, tuning_request
from registry.cli import trying
from registry.cli.acting import DEVICES, open_world
from registry.cli.names import MODEL
from registry.cli.session import REPORT_FORMATS, Session, open_session, write_files
from registry.errors import RegistryError
from registry.request import key_of
from registry.spec import MergeSpec
from registry.tuning_request import Variable


@click.command()
@click.argument("model", type=MODEL)
@click.option("--evaluations", type=click.IntRange(min=1), help="Most candidates to measure.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Most time for them.")
@click.option("--device", type=DEVICES)
@click.option("--format", "form", type=REPORT_FORMATS, default="text")
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of report, plots and proposal; .registry/tuning/MODEL if absent.",
)
@click.pass_obj
def tune(
    directory: Path,
    model: str,
    evaluations: int | None,
    minutes: float | None,
    device: str | None,
    form: str,
    output: Path | None,
) -> int:
    """Look for better numbers of a merge, and propose them as an edit of its spec.

    Candidates are built in memory and measured on the suite; `tune:` in the spec says what is
    varied and what counts. Nothing is built or changed: the proposal is a diff for `git apply`. A
    search that was stopped goes on where it was.
    """
    session = open_session(directory)
    spec, pinned = trying.ready(session, model)
    plan = tuning.effective(spec)
    if not plan.parameters and not plan.weights:
        msg = f"{model}: nothing is recommended to vary for {spec.method}"
        raise RegistryError(msg, "say what in the spec: `tune: {weights: {sql: [0.3, 0.5, 0.7]}}`")
    varied = tuning_request.variables(spec, plan, pinned)
    request = tuning_request.search_request(session.loaded.catalog, spec, plan, pinned, varied)
    budget = search.Budget(evaluations or plan.evaluations, minutes or plan.minutes)
    folder = directory / output if output else trying.folder(session, "tuning", model)
    with open_world(session, device) as world:
        found = search.run(world, model, request, budget)
        proposal = _proposal(session, spec, varied, found)
        files = _files(model, request, found, proposal)
        write_files(folder, files)
        world.log_run(search_log.of(model, world.commit, request, found, files))
    session.index.save()
    text = _text(model, request, found, proposal, folder)
    click.echo(trying.told(form, files, text))
    return 0


def _proposal(
    session: Session, spec: MergeSpec, varied: Sequence[Variable], found: Mapping[str, Any]
) -> str:
    """Return the diff of the spec, nothing if the declared recipe is as good."""
    if not tuning_report.is_better(found):
        return ""
    places = {one.label: one.place for one in varied}
    file = f"catalog/merges/{spec.name}.yaml"
    before = (session.root / file).read_text("utf-8")
    after = spec_edit.edited(before, tuning_report.changes(found, places))
    return spec_edit.diff(before, after, file)


def _files(
    model: str, request: Mapping[str, Any], found: Mapping[str, Any], proposal: str
) -> dict[str, bytes]:
    from registry import charts, plots

    pictures = plots.draw(charts.of_search(model, request, found))
    data = tuning_report.as_data(model, request, found, key=key_of(request), proposal=proposal)
    return {
        "report.html": tuning_report.html(model, request, found, proposal, pictures).encode(),
        "report.md": tuning_report.markdown(model, request, found, proposal).encode(),
        "report.json": report.as_json(data).encode() + b"\n",
        "proposal.diff": proposal.encode(),
        **pictures,
    }


def _text(
    model: str,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    proposal: str,
    folder: Path,
) -> str:
    told = [tuning_report.text(model, request, found)]
    told += [f"hint    {one}" for one in tuning_report.hints(request, found)]
    told.append(f"report  {folder / 'report.html'}")
    if proposal:
        told += [
            f"score   {tuning_report.reasons(request, found)}",
            f"apply   git apply {folder / 'proposal.diff'}",
            "",
            proposal.rstrip("\n"),
        ]
    else:
        told.append("the declared recipe is as good as any that was tried: nothing to change")
    return "\n".join(told)
