"""The command that looks for better numbers: tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from registry import observation, report, search, spec_edit, tuning, tuning_report, tuning_request
from registry.cli.acting import DEVICES, open_world
from registry.cli.session import Session, open_session, write_files
from registry.errors import RegistryError
from registry.record import BuildRecord
from registry.spec import MergeSpec, Tune
from registry.tuning_request import Variable
from registry.world import World

_FORMATS = click.Choice(["text", "json", "markdown"])


@click.command()
@click.argument("model")
@click.option("--evaluations", type=click.IntRange(min=1), help="Most candidates to measure.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Most time for them.")
@click.option("--device", type=DEVICES)
@click.option("--format", "form", type=_FORMATS, default="text")
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
    session.require([model])
    spec = session.loaded.catalog.merges[model]
    plan = tuning.effective(spec)
    _refuse_untunable(spec, plan)
    pinned = session.declared[model].pin(_digests(session, spec))
    varied = tuning_request.variables(spec, plan, pinned)
    request = tuning_request.search_request(session.loaded.catalog, spec, plan, pinned, varied)
    budget = search.Budget(evaluations or plan.evaluations, minutes or plan.minutes)
    folder = directory / output if output else _folder(session, model)
    with open_world(session, device) as world:
        found = search.run(world, model, request, budget)
        proposal = _proposal(session, spec, varied, found)
        files = _files(model, request, found, proposal)
        write_files(folder, files)
        _log(world, spec, request, found, files)
    session.index.save()
    click.echo(_told(form, model, request, found, proposal, folder))
    return 0


def _refuse_untunable(spec: MergeSpec, plan: Tune) -> None:
    if plan.suite is None and spec.suite is None:
        msg = f"{spec.name}: expected a suite to measure candidates on, found none"
        raise RegistryError(msg, "add `evaluation: {suite: …}` to the merge, or `tune:` with one")
    if spec.slices or spec.tokenizer != "base":
        what = "stacks layers" if spec.slices else "has a vocabulary of its own"
        msg = f"{spec.name} {what}: it cannot be tried in the memory of its base"
        raise RegistryError(msg)
    if not plan.parameters and not plan.weights:
        msg = f"{spec.name}: nothing is recommended to vary for {spec.method}"
        raise RegistryError(msg, "say what in the spec: `tune: {weights: {sql: [0.3, 0.5, 0.7]}}`")


def _digests(session: Session, spec: MergeSpec) -> dict[str, str]:
    recorded = session.observed().recorded
    digests = {}
    for name in spec.upstream:
        one = recorded.get(name)
        if not isinstance(one, BuildRecord) or one.built is None:
            msg = f"{spec.name}: merge {name} is not built"
            raise RegistryError(msg, f"run `registry sync {name}`")
        digests[name] = one.built.model_digest
    return digests


def _folder(session: Session, model: str) -> Path:
    return observation.state_folder(session.root) / "tuning" / model


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
    data = tuning_report.as_data(model, request, found, key=search.key(request), proposal=proposal)
    return {
        "report.html": tuning_report.html(model, request, found, proposal, pictures).encode(),
        "report.md": tuning_report.markdown(model, request, found, proposal).encode(),
        "report.json": report.as_json(data).encode() + b"\n",
        "proposal.diff": proposal.encode(),
        **pictures,
    }


def _log(
    world: World,
    spec: MergeSpec,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> None:
    from registry import search_log

    log = search_log.of(spec.name, world.commit, request, found, files)
    world.log_run(log)


def _told(
    form: str,
    model: str,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    proposal: str,
    folder: Path,
) -> str:
    if form == "json":
        data = tuning_report.as_data(
            model, request, found, key=search.key(request), proposal=proposal
        )
        return report.as_json(data)
    if form == "markdown":
        return tuning_report.markdown(model, request, found, proposal)
    told = [tuning_report.text(model, request, found), f"report  {folder / 'report.html'}"]
    if proposal:
        told += [
            f"better  {tuning_report.reasons(request, found)}",
            f"apply   git apply {folder / 'proposal.diff'}",
            "",
            proposal.rstrip("\n"),
        ]
    else:
        told.append("the declared recipe is as good as any that was tried: nothing to change")
    return "\n".join(told)
