"""The commands of `registry`, by name; each module is imported when its command is called.

    reading     validate, status, show, explain, diff
    planning    plan
    tracing     lineage, impact
    syncing     sync
    acting      verify, export, doctor, ui
    looking     analyze, recommend
    tuning      tune
    serving     bench-serving
    following   serve
    making      init, add
    recalling   recall
    completing  completion
    importing   import mergekit

Help texts stand here, so that `registry --help` imports nothing but click.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

_COMMANDS = {
    "init": ("making", "Make a new catalog repository."),
    "add": ("making", "Add a base, an adapter or a checkpoint with its digest."),
    "import": ("importing", "Turn a mergekit file into a merge spec."),
    "validate": ("reading", "Check every file of the catalog."),
    "plan": ("planning", "Show what sync would do, and why."),
    "sync": ("syncing", "Build what is stale, store it, log it, record it."),
    "status": ("reading", "Show what is live, and what is not as declared."),
    "show": ("reading", "Show what is inside a model."),
    "explain": ("reading", "Say why a model is stale, or that it is not."),
    "diff": ("reading", "Show what changed in a model since a revision."),
    "lineage": ("tracing", "Show the ingredients of a model at any depth."),
    "impact": ("tracing", "Show which models contain an ingredient, at any depth."),
    "analyze": ("looking", "Show how terms agree and what a merge leaves of them."),
    "recommend": ("looking", "Propose a recipe for adapters, and say why."),
    "quality": ("judging", "Show what a model gained over its base and kept of its parts."),
    "compare": ("comparing", "Measure every method, a recipe's steps, or a line, side by side."),
    "tune": ("tuning", "Look for better numbers of a merge, and propose them."),
    "bench-serving": ("serving", "Measure a merged model against switched adapters."),
    "export": ("acting", "Copy a built model, byte for byte, into a folder."),
    "verify": ("acting", "Compare stored bytes with their digests."),
    "doctor": ("acting", "Check that everything is here that a sync needs."),
    "serve": ("following", "Follow a branch as a service: sync, and answer over HTTP."),
    "ui": ("acting", "Open the MLflow pages on the configured store."),
    "recall": ("recalling", "Take an ingredient back, and rebuild what can do without it."),
    "completion": ("completing", "Make a shell complete commands, models and adapters."),
}


class _Lazy(click.Group):
    """A group that imports a command's module only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"registry.cli.{_COMMANDS[cmd_name][0]}")
        # `import` is no name that a function can have, nor is one with a hyphen.
        function = {"import": "importing"}.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = getattr(module, function)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=text)
            for name, (_, text) in _COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from registry.errors import did_you_mean

            hint = did_you_mean(args[0], _COMMANDS)
            message = f"{error.message} {hint}".strip()
            raise click.UsageError(message, ctx) from None


def _show_version(ctx: click.Context, _: click.Parameter, wanted: Any) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"registry {version('merge-registry')}")
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="Run as if started in this folder.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version)
@click.pass_context
def registry(ctx: click.Context, directory: Path) -> None:
    """Build what the catalog in Git declares: merged models, with exact recipe and lineage.

    Exit codes: 0 done, 1 invalid or failed, 2 changes pending (--detailed-exitcode), 64 wrong
    usage, 70 a bug of ours, 75 try again later, 129/130/143 interrupted.
    """
    ctx.obj = directory
