"""Commands that look into weights before anything is merged: analyze, recommend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from registry import analysis, operands, report
from registry.analysis import Question
from registry.cli.acting import DEVICES, open_world
from registry.cli.session import FORMATS, NAME, Session, open_session, refuse_existing, write_output
from registry.errors import UsageError
from registry.record import BuildRecord
from registry.spec import Ingredient
from schemas.lora import CONFIG
from schemas.model import read_config


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
    help="Write pictures (PNG and SVG) into this folder; below it by model if there are several.",
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
    for name in merges:
        if catalog.merges[name].slices:
            terms = " ".join(term.label for term in catalog.merges[name].terms)
            msg = f"{name} stacks layers: nothing is added up in it"
            raise UsageError(
                msg, f"compare its operands: `registry analyze {terms}`" if terms else ""
            )
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
        pictures = plots.draw(charts.of_analysis(answer))
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name, data in pictures.items():
                (place / name).write_bytes(data)
        except OSError as error:
            msg = f"cannot write to {place}: {error.strerror}"
            raise UsageError(msg, "choose another folder for --plots") from error
        count += len(pictures)
    click.echo(f"{count} pictures in {folder}", err=True)


@click.command()
@click.argument("names", nargs=-1, metavar="ADAPTER...")
@click.option("--subtract", multiple=True, metavar="ADAPTER", help="Take this one away.")
@click.option("--device", type=DEVICES)
@click.option("--format", "form", type=FORMATS, default="text")
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Save the spec as well."
)
@click.pass_obj
def recommend(
    directory: Path,
    names: tuple[str, ...],
    subtract: tuple[str, ...],
    device: str | None,
    form: str,
    output: Path | None,
) -> int:
    """Propose a recipe for adapters and checkpoints of one base, and say why.

    The text is a merge spec with the reasons as comments: a starting point, to be measured.
    """
    from registry import recommendation, recommendation_report

    target = directory / output if output else None
    if target:
        refuse_existing(target)
    session = open_session(directory)
    catalog = session.loaded.catalog
    found, less = _ingredients(session, names, subtract)
    (answer,) = _answers(session, [analysis.of_operands(catalog, found)], 0.1, device)
    ids = [one.id for one in found]
    ranks = [_rank(session, one) for one in found]
    facts = recommendation_report.facts_of(answer["figures"], ids, ranks, less)
    advice = recommendation.recommend(facts)
    text = recommendation_report.spec(
        advice,
        facts,
        name=_name(target) or recommendation_report.free_name(ids, less, catalog.merges),
        base=answer["base"],
        operands=ids,
        suites=catalog.suites,
    )
    if form == "json":
        labels = [one.label for one in found]
        data = recommendation_report.as_data(
            advice, facts, base=answer["base"], labels=labels, text=text
        )
        click.echo(report.as_json(data))
    else:
        click.echo(text)
    # Not by the shell's redirection: an empty file in the catalog would refuse the catalog.
    if target:
        write_output(target, text + "\n")
    return 0


def _name(file: Path | None) -> str | None:
    """Return the name that the catalog wants in a file, if the file's own can be one."""
    stem = file.stem if file else ""
    return stem if NAME.fullmatch(stem) else None


def _ingredients(
    session: Session, names: Sequence[str], subtract: Sequence[str]
) -> tuple[list[Ingredient], int]:
    """Return what is added, then what is subtracted, and how many the latter are."""
    catalog = session.loaded.catalog
    found = operands.find([*names, *subtract], catalog)
    less = len(operands.find(subtract, catalog))
    if not found:
        msg = "expected an adapter or a checkpoint, found none"
        raise UsageError(msg)
    for kind, name, _ in found:
        if kind == "merge":
            msg = f"expected adapters and checkpoints, found merge {name}"
            raise UsageError(msg, f"`registry analyze {name}` shows what is left of its terms")
    return [catalog.ingredients[one] for one in found], less


def _rank(session: Session, one: Ingredient) -> int | None:
    """Return the largest rank that an adapter's configuration names."""
    if one.kind != "adapter":
        return None
    config = read_config(session.root / one.folder, CONFIG)
    ranks = [config.get("r"), *dict(config.get("rank_pattern") or {}).values()]
    return max((rank for rank in ranks if isinstance(rank, int)), default=None)
