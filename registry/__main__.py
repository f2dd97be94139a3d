"""The `registry` program: runs the command line and turns every outcome into an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from registry.errors import EXIT_BUG, Interrupted, InvalidCatalog, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_SECONDS = 0.05


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    # What a command reads it needs until its end: looking for garbage in it every 700 objects takes
    # a fifth of the time of a plan of 100,000 models.
    gc.set_threshold(200_000)
    # A signal may rise anywhere in here: while modules are imported, while an error is told.
    try:
        _take_signals()
        code = run(sys.argv[1:])
        # All is done and told. While Python takes itself apart, for half a second with MLflow in
        # it, signals do what the system has them do, and would make another code of this one.
        _accept(signal.SIG_IGN)
    except Interrupted as error:
        click.echo("registry: interrupted", err=True)
        code = 128 + error.signal_number
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are told on standard error."""
    from registry.cli import registry

    try:
        outcome = registry.main(arguments, prog_name="registry", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return 128 + signal.SIGINT
    except click.ClickException as error:
        error.show()
        return 64
    except RegistryError as error:
        _tell(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output is gone (`registry plan | head`): nothing to complain about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # noqa: BLE001  our bug: told in short, kept in full
        _tell_bug()
        return EXIT_BUG
    return outcome if isinstance(outcome, int) else 0


def _tell(error: RegistryError) -> None:
    if isinstance(error, InvalidCatalog):
        from registry import report

        click.echo(report.problems_text(error.problems), err=True)
        click.echo(error.message, err=True)
        return
    click.echo(f"registry: {error.message}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def _tell_bug() -> None:
    import tempfile

    text = traceback.format_exc()
    handle, path = tempfile.mkstemp(prefix="registry-", suffix=".log")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    click.echo(f"registry: a bug of ours: {text.strip().splitlines()[-1]}", err=True)
    click.echo(f"  hint: the traceback is in {Path(path)}; please report it", err=True)


def _take_signals() -> None:
    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        # A second signal must not interrupt the cleaning up after the first.
        _accept(signal.SIG_IGN)
        raise Interrupted(number)

    def report(lost: sys.UnraisableHookArgs) -> None:
        # Python drops what rises in a finaliser or in a callback from C: the signal comes again.
        if isinstance(lost.exc_value, Interrupted):
            arguments = (threading.main_thread().ident, lost.exc_value.signal_number)
            _accept(interrupt)
            threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, arguments).start()
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = report
    _accept(interrupt)


def _accept(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in _SIGNALS:
        signal.signal(number, handler)


if __name__ == "__main__":
    main()
