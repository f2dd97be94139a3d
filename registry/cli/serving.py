"""The command that compares serving a merged model with switching its adapters: bench-serving."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from registry import observation, report, serving, serving_report, serving_request
from registry.cli import trying
from registry.cli.acting import DEVICES, open_world
from registry.cli.names import MODEL
from registry.cli.session import REPORT_FORMATS, Session, open_session, write_files
from registry.record import input_label
from registry.request import key_of
from registry.serving_request import Load


@click.command("bench-serving")
@click.argument("model", type=MODEL)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 8),
    show_default=True,
    help="Prompts answered at once; may be given several times.",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="Length of every answer.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Requests of each way to answer, at each batch size.",
)
@click.option("--device", type=DEVICES)
@click.option("--format", "form", type=REPORT_FORMATS, default="text")
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of report and plots; .registry/serving/MODEL if absent.",
)
@click.pass_obj
def bench_serving(
    directory: Path,
    model: str,
    batches: tuple[int, ...],
    tokens: int,
    repeats: int,
    device: str | None,
    form: str,
    output: Path | None,
) -> int:
    """Measure a built merge against its base with switched adapters, on this machine.

    Speeds, time to the first token, memory, time to load and to switch. The adapters are all those
    that the merge is made of, loaded once by PEFT; the prompts are those of the model's suite.
    """
    session = open_session(directory)
    recorded = session.observed().recorded
    session.require([model], also=recorded)
    built = observation.require_record(session.root, model).built
    assert built is not None
    artifact = observation.require_artifact(session.store, model, built)
    catalog = session.loaded.catalog
    found = serving_request.operands(model, built, recorded, catalog)
    load = Load(tuple(dict.fromkeys(batches)), tokens, repeats)
    request = serving_request.serving_request(built, found, _prompts(session, model), load)
    sources = [built.request["base"], *found.adapters]
    folder = directory / output if output else trying.folder(session, "serving", model)
    with open_world(session, device) as world:
        figures = serving.measure(world, model, request, artifact=artifact, sources=sources)
        figures["not_switched"] = [input_label(one) for one in found.others]
        files = _files(model, request, figures)
        write_files(folder, files)

        from registry import serving_log

        log = serving_log.of(model, world.commit, built, request, figures, files)
        world.log_run(log)
    session.index.save()
    text = serving_report.text(model, request, figures)
    click.echo(trying.told(form, files, f"{text}\nreport   {folder / 'report.html'}"))
    return 0


def _prompts(session: Session, model: str) -> list[dict[str, Any]]:
    """Return prompts of the suite that a model is declared with, or our own."""
    catalog = session.loaded.catalog
    spec = catalog.merges.get(model)
    if spec is None or spec.suite is None:
        return serving_request.own_prompts()
    suite = catalog.suites[spec.suite]
    folder = session.root / suite.folder
    return serving_request.suite_prompts(
        [(task, (folder / task["data"]).read_bytes()) for task in suite.tasks if task.get("data")]
    )


def _files(model: str, request: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, bytes]:
    from registry import plots

    data = serving_report.as_data(model, request, figures, key=key_of(request))
    pictures = plots.draw(serving_report.charts(model, request, figures))
    return {
        "report.html": serving_report.html(model, request, figures, pictures).encode(),
        "report.md": serving_report.markdown(model, request, figures).encode(),
        "report.json": report.as_json(data).encode() + b"\n",
        **pictures,
    }
