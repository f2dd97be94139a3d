"""Progress on standard error: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from threading import RLock
from typing import Any

import click

from registry.worker import Progress

_LINE_SECONDS = 5.0
"""Between two lines that say how far a stage is; one that is over sooner has none."""


class Terminal:
    """Show what a sync is doing; results are not its business."""

    def __init__(self) -> None:
        """Look once whether a person is watching."""
        self._is_terminal = sys.stderr.isatty()
        self._model = ""
        self._title = ""
        self._bar: Any = None
        self._told_at = 0.0
        self._alone = RLock()  # jobs and the background lane tell their news from their threads

    def stage(self, model: str, text: str) -> None:
        """Begin a stage of a model."""
        with self._alone:
            self.close()
            self._model, self._title = model, f"{model}  {text}"
            self._told_at = time.monotonic()
            if not self._is_terminal:
                click.echo(self._title, err=True)
            else:
                click.echo(f"\r\033[K{self._title}", err=True, nl=False)

    def progress(self, model: str, progress: Progress) -> None:
        """Move the bar of the current stage, or say now and then how far it is."""
        # One bar: with several jobs it is that of the stage that began last.
        with self._alone:
            if model != self._model:
                return
            if self._is_terminal:
                self._move(progress)
            elif time.monotonic() > self._told_at + _LINE_SECONDS:
                self._told_at = time.monotonic()
                far = f"{progress.done} of {progress.total} {progress.unit}"
                click.echo(f"{self._title}  {far}", err=True)

    def _move(self, progress: Progress) -> None:
        if self._bar is None:
            click.echo("\r\033[K", err=True, nl=False)
            self._bar = click.progressbar(
                length=progress.total,
                label=self._title,
                file=sys.stderr,
                show_pos=True,
                item_show_func=lambda _: progress.unit,
            )
            self._bar.render_progress()
        self._bar.update(progress.done - self._bar.pos)

    def warn(self, message: str) -> None:
        """Tell what did not work and fails nothing."""
        with self._alone:
            self.close()
            click.echo(f"warning: {message}", err=True)

    def close(self) -> None:
        """Take the bar away, and give back the cursor that it hid."""
        with self._alone:
            self._bar = None
            if self._is_terminal and self._title:
                click.echo("\r\033[K\033[?25h", err=True, nl=False)
                self._title = ""
