"""Commands on what is built: verify, export, doctor, ui; and the world that work is done in."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from registry import git, keys, observation, report, tracking_place
from registry.cli.names import MODEL
from registry.cli.session import FORMATS, Session, open_session
from registry.errors import RegistryError
from registry.record import BuildRecord
from registry.terminal import Terminal
from registry.world import World

DEVICES = click.Choice(["auto", "cpu", "cuda"])


@contextmanager
def open_world(
    session: Session,
    device: str | None,
    *,
    jobs: int = 1,
    push: bool = False,
    memory_bytes: int | None = None,
) -> Iterator[World]:
    """Yield what a sync works with; the workers end with the block.

    All workers together have `memory_bytes`, if that is given.
    """
    from registry import gpus
    from registry.executor import Executor
    from registry.tracking import Tracker

    settings = session.loaded.catalog.settings
    observer = Terminal()
    uri = tracking_place.default_uri(session.root)

    def make_tracker() -> Tracker:
        tracker = Tracker(uri, settings.experiment)
        tracking_place.remember_store(session.root, uri, tracker.store_id())
        return tracker

    log = observation.state_folder(session.root) / "worker.log"
    device = device or settings.device
    found = gpus.count() if jobs > 1 and device != "cpu" else 0
    with closing(observer), closing(Executor(jobs, log, found)) as executor:
        world = World(
            root=session.root,
            catalog=session.loaded.catalog,
            declared=session.declared,
            index=session.index,
            store=session.store,
            observer=observer,
            executor=executor,
            make_tracker=make_tracker,
            commit=_commit_text(session.root),
            device=device,
            push=push,
            memory_bytes=memory_bytes and max(1, memory_bytes // jobs),
        )
        with closing(world):
            yield world


def _commit_text(root: Path) -> str:
    """Return HEAD, with `+dirty` if a source file of the catalog differs from it."""
    head = git.head(root)
    if head is None:
        return "none"
    changed = (
        path for path in git.status(root, "catalog") if not path.startswith("catalog/builds/")
    )
    return head + ("+dirty" if any(changed) else "")


@click.command()
@click.argument("models", nargs=-1, type=MODEL, metavar="[MODEL]...")
@click.option("--deep", is_flag=True, help="Read every byte again, not only sizes.")
@click.option("--rebuild", is_flag=True, help="Build again in a temporary folder and compare.")
@click.option("--device", type=DEVICES)
@click.option("--format", "form", type=FORMATS, default="text")
@click.pass_obj
def verify(
    directory: Path,
    models: tuple[str, ...],
    device: str | None,
    form: str,
    *,
    deep: bool,
    rebuild: bool,
) -> int:
    """Compare stored bytes with their recorded digests; what is altered is built again by sync."""
    from registry import verification

    session = open_session(directory)
    recorded = session.observed().recorded
    chosen = session.require(models, also=recorded) or set(recorded)
    known = {
        model: one
        for model, one in sorted(recorded.items())
        if model in chosen and isinstance(one, BuildRecord) and one.built
    }
    found = [verification.check(session.store, one, deep=deep or rebuild) for one in known.values()]
    verification.remember(session.root, found)
    if rebuild:
        with open_world(session, device) as world:
            intact = {one.model for one in found if one.is_intact}
            again = sorted(intact & session.declared.keys())
            found += [verification.rebuild(world, known[model]) for model in again]
    missing = sorted(set(models) - known.keys())
    found += [verification.Finding(model, "is not built", is_intact=False) for model in missing]
    if form == "json":
        rows = [one.as_data() for one in found]
        click.echo(report.as_json({"models": rows}))
    else:
        for one in found:
            click.echo(f"{one.model}: {one.text}")
        bad = sum(not one.is_intact for one in found)
        click.echo(f"{len(known)} verified, {bad} problem{'' if bad == 1 else 's'}")
    return 0 if all(one.is_intact for one in found) else 1


@click.command()
@click.argument("model", type=MODEL)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--with-reports", is_flag=True, help="Also write the build report and the record.")
@click.pass_obj
def export(directory: Path, model: str, folder: Path, *, with_reports: bool) -> int:
    """Copy a built model, byte for byte and verified, into an absent or empty folder."""
    session = open_session(directory)
    session.require([model], also=session.observed().recorded)
    built = observation.require_record(session.root, model).built
    assert built is not None
    target = folder if folder.is_absolute() else directory / folder
    if target.is_dir() and any(target.iterdir()):
        msg = f"{folder} is not empty"
        raise RegistryError(msg, "choose an absent or empty folder")
    artifact = observation.require_artifact(session.store, model, built)
    session.store.materialize(artifact, target, link=False)
    if with_reports:
        for name, content in _reports(session, model).items():
            (target / name).write_bytes(content)
    click.echo(f"{model}  {built.model_digest}  {len(artifact.files)} files in {folder}")
    return 0


def _reports(session: Session, model: str) -> dict[str, bytes]:
    """Return what lies beside an exported model and is no part of its digests."""
    from registry.cli.judging import quality_files

    known = observation.require_record(session.root, model)
    assert known.built is not None
    files = {
        "build-record.json": known.as_data(),
        "build-report.json": keys.read_report(session.store.cache, known.built.key) or {},
    }
    told = {name: json.dumps(data, indent=2).encode() + b"\n" for name, data in files.items()}
    # A model without a suite has no quality to report.
    with contextlib.suppress(RegistryError):
        told |= quality_files(session, model)
    return told


@click.command()
@click.option("--format", "form", type=FORMATS, default="text")
@click.pass_obj
def doctor(directory: Path, form: str) -> int:
    """Check that everything is here that a sync needs: git, bytes, device, remote, tracking."""
    from registry import checkup

    session = open_session(directory)
    findings = list(checkup.look(session.root, session.loaded.catalog, session.store))
    if form == "json":
        click.echo(report.as_json({"checks": [one.as_data() for one in findings]}))
    else:
        rows = [("ok" if one.is_good else "PROBLEM", one.subject, one.text) for one in findings]
        click.echo("\n".join(report.table(rows)))
        bad = sum(not one.is_good for one in findings)
        click.echo(f"{bad} problem{'' if bad == 1 else 's'}")
    return 0 if all(one.is_good for one in findings) else 1


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.pass_obj
def ui(directory: Path, port: int, *, no_browser: bool) -> int:
    """Open the MLflow pages on the configured store; ends with Ctrl-C."""
    import subprocess

    session = open_session(directory)
    uri = tracking_place.default_uri(session.root)
    pages = tracking_place.ui_command(session.root, uri, port=port)
    click.echo(pages.url)
    if not pages.argv:
        if not no_browser:
            click.launch(pages.url)
        return 0
    from registry.tracking import create_store

    create_store(uri)  # or a Ctrl-C while the server makes it would spoil it
    with subprocess.Popen(pages.argv, env={**os.environ, **(pages.environment or {})}) as server:
        try:
            if not no_browser and _answers(port):
                click.launch(pages.url)
            return server.wait()
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    """Return whether something answers on a port of this machine within a minute."""
    import socket
    import time

    for _ in range(120):
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return True
        except OSError:
            time.sleep(0.5)
    return False
