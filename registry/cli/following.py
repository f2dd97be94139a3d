"""The command `serve`: choose the place, the secrets, the port; then serve until a signal comes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from registry.cli.acting import DEVICES


@click.command()
@click.option(
    "--repository",
    metavar="URL",
    help="Git repository to follow; needed at the first start. A path works too.",
)
@click.option("--branch", metavar="NAME", help="Branch to follow. Default: main.")
@click.option(
    "--directory",
    "place",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("registry-service"),
    show_default=True,
    help="Folder of the service's own, made at the first start.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8400, show_default=True)
@click.option(
    "--interval",
    type=click.FloatRange(1, 86400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look at the branch, a tenth more or less.",
)
@click.option("--require-signed", is_flag=True, help="Follow only commits that git verifies.")
@click.option("--device", type=DEVICES, help="Where merges are computed.")
@click.option("--push/--no-push", default=False, help="Push artifacts to the DVC remote.")
@click.pass_obj
def serve(  # noqa: PLR0913  one argument per option
    directory: Path,
    repository: str | None,
    branch: str | None,
    place: Path,
    host: str,
    port: int,
    interval: float,
    device: str | None,
    *,
    require_signed: bool,
    push: bool,
) -> None:
    """Follow a branch: sync what it declares, and answer over HTTP. Ends with a signal.

    Secrets come from the environment: REGISTRY_READ_TOKEN and REGISTRY_WRITE_TOKEN, as bearer
    tokens, and REGISTRY_WEBHOOK_SECRET. Without tokens only this machine may read, and nobody
    write.
    """
    from importlib.metadata import version

    from registry.service import access
    from registry.service import place as place_of

    secrets = access.secrets_of(os.environ)
    access.require_safe(host, secrets)
    claimed = place_of.claim(directory / place, repository, branch, directory)
    # What takes half a second to import comes after what may be wrong.
    from registry.service import server
    from registry.service.reconciler import Reconciler, Settings

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("registry").setLevel(logging.INFO)
    options = (*(("--push",) if push else ()), *(("--device", device) if device else ()))
    settings = Settings(interval, require_signed, push, options)
    with server.bind(host, port) as listening:
        reconciler = Reconciler(claimed, settings)
        release = version("merge-registry")
        server.run(reconciler, listening, secrets, release, lambda text: click.echo(text, err=True))
