"""One `registry sync` as a child process: its log, its results, its end. Decides nothing.

A log keeps its start and its end; of the jobs the newest are kept. The child has the environment of
the service without its tokens.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import IO, Any

from registry import keys
from registry.errors import EXIT_BUG
from registry.service import access
from registry.service.progress import Progress
from registry.service.snapshot import Job

KEPT = 50
"""Jobs that are remembered, with their logs."""

LOG_BYTES = 1 << 20
"""Of a log: a half from its start, a half from its end."""

_RESULTS_BYTES = 64 << 20  # a result is some 200 bytes per model
_LATER = 75


class Jobs:
    """The jobs of one service, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which need not exist."""
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self._child_lock = Lock()
        self._is_stopped = False
        self.progress = Progress()
        """How far the running job is, or the last one was."""

    def load(self) -> tuple[Job, ...]:
        """Return the kept jobs, the newest first; one that our end cut off is interrupted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = [job for path in self._folder.glob("*.json") if (job := _read(path))]
        newest = sorted(found, key=lambda job: job.id, reverse=True)
        return tuple(
            job if job.ended else replace(job, ended=job.started, outcome="interrupted")
            for job in newest
        )

    def run(self, job: Job, arguments: list[str]) -> Job:
        """Run `registry` to its end and return the job with its outcome and results."""
        self._write(job)
        with (self._folder / f"{job.id}.out").open("w+b") as results:
            code = self._run_child(job, arguments, results)
            results.seek(0)
            rows = _results(results.read(_RESULTS_BYTES))
        (self._folder / f"{job.id}.out").unlink(missing_ok=True)
        ended = replace(
            job,
            ended=time.time(),
            exit_code=code,
            outcome=outcome(code, has_results=rows is not None),
            results=rows or (),
        )
        self._write(ended)
        self._forget(job.id - KEPT)
        return ended

    def stop(self) -> None:
        """Let the running child stop in order, and no other start."""
        with self._child_lock:
            self._is_stopped = True
            if self._child and self._child.poll() is None:
                self._child.send_signal(signal.SIGTERM)

    @property
    def is_running(self) -> bool:
        """Whether a child runs now."""
        return self._child is not None and self._child.poll() is None

    def log(self, number: int) -> bytes | None:
        """Return the log of a job as far as it is written, None for an unknown job."""
        try:
            return (self._folder / f"{number}.log").read_bytes()
        except FileNotFoundError:
            return None

    def _run_child(self, job: Job, arguments: list[str], results: IO[bytes]) -> int:
        # A folder called registry, where the service was started or in the clone, means nothing.
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        with self._child_lock:
            if self._is_stopped:
                return 128 + signal.SIGTERM
            self._child = subprocess.Popen(
                [sys.executable, "-m", "registry", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=results,
                stderr=subprocess.PIPE,
                env=access.without_secrets(environment),
                # Ctrl-C in a terminal reaches the service, which then stops its child once.
                start_new_session=True,
            )
        self.progress = Progress()

        def hear(data: bytes) -> None:
            self.progress = self.progress.after(data)

        # Its end is waited for, whatever happens to the log.
        with self._child as child, (self._folder / f"{job.id}.log").open("wb") as log:
            assert child.stderr is not None
            keep(child.stderr, log, LOG_BYTES, hear)
        return child.returncode

    def _write(self, job: Job) -> None:
        data = json.dumps(job.as_data(), indent=1).encode()
        keys.replace_file(self._folder / f"{job.id}.json", data)

    def _forget(self, last: int) -> None:
        for path in self._folder.iterdir():
            if path.stem.isdigit() and int(path.stem) <= last:
                path.unlink(missing_ok=True)


def outcome(code: int, *, has_results: bool) -> str:
    """Return what an exit code means: done, failed, refused, later, bug, interrupted or died.

    Failed: some models did. Refused: nothing was tried. Died: by a signal that is not an end.
    """
    ends = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if code in ends or -code + 128 in ends:
        return "interrupted"
    if code == 1 and has_results:
        return "failed"
    known = {0: "done", _LATER: "later", EXIT_BUG: "bug"}
    return known.get(code, "died" if code < 0 else "refused")


def keep(
    source: IO[bytes], log: IO[bytes], limit: int, hear: Callable[[bytes], None] | None = None
) -> None:
    """Copy a stream to its end; where it is longer than `limit`, its middle is left out.

    `hear` is told all of it at once.
    """
    half = limit // 2
    write = _writer(log)
    room = half
    tail = bytearray()
    left_out = 0
    while chunk := os.read(source.fileno(), 65536):
        if hear:
            hear(chunk)
        write(chunk[:room])
        tail += chunk[room:]
        room -= min(room, len(chunk))
        if (more := len(tail) - half) > 0:
            del tail[:more]
            left_out += more
    if left_out:
        write(f"\n… {left_out} bytes left out …\n".encode())
    write(bytes(tail))


def _writer(log: IO[bytes]) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        # A full disk must not keep a child from ending.
        with contextlib.suppress(OSError):
            log.write(data)
            log.flush()

    return write


def _read(path: Path) -> Job | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        data = json.loads(path.read_bytes())
        data |= {name: tuple(data[name]) for name in ("models", "results")}
        return Job(**data)
    return None


def _results(told: bytes) -> tuple[Mapping[str, Any], ...] | None:
    """Return the results in what a sync wrote, None if it did not come that far."""
    try:
        return tuple(json.loads(told)["results"])
    except (ValueError, KeyError, TypeError):
        return None
