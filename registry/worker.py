"""Run `python -m merger` as a child process: orders in, events out. Knows no tensor and no spec.

One child serves many orders, so torch is imported once; it is started by the first order, or when
one is about to come, and again after a death. It ends with its standard input, so it dies with this
process, and runs in a session of its own: Ctrl-C reaches only this process, which ends it in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from registry.errors import BuildFailed, NotNow, RegistryError
from registry.worker_process import Child, environment_of


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an order is: `done` of `total` things called `unit`."""

    done: int
    total: int
    unit: str


Event = Mapping[str, Any]


def _ignore(_: Any) -> None:
    pass


class Worker:
    """Carry out orders, one at a time, in a child process. A context manager."""

    def __init__(
        self,
        *,
        command: Sequence[str] = (sys.executable, "-m", "merger"),
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        """Take what to run, its environment (ours without secrets), where stderr is appended."""
        self.started = 0
        self._command = tuple(command)
        self._environment = environment_of(os.environ if environment is None else environment)
        self._log = log
        self._child: Child | None = None
        self._is_closed = False
        self._lock = threading.Lock()  # a sync with several jobs closes us from another thread

    def start(self) -> None:
        """Start the child before an order is there; what goes wrong is told by the first order."""
        with contextlib.suppress(BuildFailed):
            self._ready_child()

    def run(
        self,
        order: Mapping[str, Any],
        on_progress: Callable[[Progress], None] = _ignore,
        *,
        on_event: Callable[[Event], None] = _ignore,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Return the report of an order; `on_event` gets what is neither progress nor the end.

        Raises BuildFailed if the order is refused or the worker dies, NotNow if the disk is full.
        Whatever interrupts the waiting ends the worker too: its answer would be read by the next.
        """
        line = json.dumps(dict(order), allow_nan=False).encode() + b"\n"
        child = self._ready_child()
        try:
            child.send(line)
            event = self._final_event(child, on_progress, on_event, timeout_seconds)
        except BaseException:
            child.end()
            raise
        if event["event"] == "report":
            return event
        if event.get("kind") != "input":
            child.end()  # after a bug or for want of memory, nothing is known of its state
        raise self._failure(event, child)

    def renew(self) -> None:
        """End the child, which must be idle: the next order starts another."""
        with self._lock:
            child = self._child
        if child is not None:
            child.end()

    def close(self) -> None:
        """End the child: its input first, after the grace its process group."""
        with self._lock:
            self._is_closed = True
            child = self._child
        if child is not None:
            child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ready_child(self) -> Child:
        with self._lock:
            if self._is_closed:
                raise BuildFailed("the worker is closed")
            if self._child is not None and self._child.is_alive():
                return self._child
            if self._child is not None:
                self._child.end()
            try:
                self._child = Child(self._command, self._environment, self._log)
            except OSError as error:
                msg = f"the worker cannot be started: {error}"
                raise BuildFailed(msg, f"run {' '.join(self._command)} --help") from error
            self.started += 1
            return self._child

    def _final_event(
        self,
        child: Child,
        on_progress: Callable[[Progress], None],
        on_event: Callable[[Event], None],
        timeout: float | None,
    ) -> dict[str, Any]:
        """Return the report or the failure of the order that was sent."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                event = child.events.get(timeout=left)
            except queue.Empty:
                msg = f"the worker gave no report within {timeout:g} s"
                raise BuildFailed(msg, self._log_hint()) from None
            if event is None:
                child.end()
                raise self._death(child)
            if event["event"] in ("report", "failed"):
                return event
            if (progress := _progress(event)) is not None:
                on_progress(progress)
            else:
                on_event(event)

    def _death(self, child: Child) -> BuildFailed:
        if self._is_closed:
            return BuildFailed("the worker was closed before its report")
        code = child.exit_code
        hint = self._log_hint()
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            hint = "if the machine ran out of memory: fewer --jobs, or a machine with more of it"
        return BuildFailed(_with_lines(f"the worker {_ending(code)}", child.last_lines()), hint)

    def _failure(self, event: Mapping[str, Any], child: Child) -> RegistryError:
        message = _message(event)
        kind = event.get("kind")
        if kind == "input":
            return BuildFailed(message, str(event.get("hint") or ""))
        if kind == "memory":
            return BuildFailed(
                message, "free memory, use fewer --jobs, or --device cpu if it was the GPU's"
            )
        if kind == "disk":
            return NotNow(message, _disk_hint(event.get("bytes_needed")))
        head = f"the worker has a bug: {message}"
        return BuildFailed(_with_lines(head, child.last_lines()), self._log_hint())

    def _log_hint(self) -> str:
        return f"everything it wrote is in {self._log}" if self._log else ""


def _progress(event: Mapping[str, Any]) -> Progress | None:
    done, total, unit = (event.get(key) for key in ("done", "total", "unit"))
    if event["event"] == "progress" and isinstance(done, int) and isinstance(total, int):
        return Progress(done, total, str(unit))
    return None


def _message(event: Mapping[str, Any]) -> str:
    """Return what a failure says, with the term, tensor and field that it does not name itself."""
    message = str(event.get("message") or "no reason given")
    names = (str(event.get(key) or "") for key in ("term", "tensor", "field"))
    return ": ".join([*(name for name in names if name and name not in message), message])


def _disk_hint(needed: Any) -> str:
    if not isinstance(needed, int):
        return "free space on the disk of the store"
    return f"free at least {needed / 1e9:.3g} GB ({needed} bytes) on the disk of the store"


def _ending(code: int | None) -> str:
    if code is None:
        return "ended before its report"
    number = -code if code < 0 else code - 128  # a shell in between adds 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with exit code {code} before its report"
    return f"was killed by {name}"


def _with_lines(head: str, lines: Sequence[str]) -> str:
    shown = "".join(f"\n  | {line}" for line in lines if line.strip())
    return f"{head}; the last it wrote:{shown}" if shown else head
