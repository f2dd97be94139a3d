"""One child process with its pipes: lines in, events out, and an end that is certain.

Knows no order and no report; its environment holds no secret and imports only our own `merger`.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import json
import os
import queue
import signal
import subprocess
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

GRACE_SECONDS = 8.0
"""From the end of its input to a child's kill: it must not outlive us by more than 10 s."""

_TAIL_LINES = 200  # of standard error, kept for the message of a death
_SHOWN_LINES = 12
_SHOWN_BYTES = 2_000
_EVENT_BYTES = 256 << 20  # a report names every file and answer; more than this is no report

# A worker reads folders and computes: whatever opens a door elsewhere stays here.
_SECRETS = (
    "AWS_*", "AZURE_*", "GOOGLE_*", "MLFLOW_*", "DVC_*", "GIT_*", "SSH_*", "HF_TOKEN*",
    "*TOKEN", "*_TOKEN_*", "*SECRET*", "*PASSWORD*", "*PASSWD*", "*CREDENTIAL*", "*_KEY", "*_DSN",
    "*_URL", "*_URI", "*_PROXY",
)  # fmt: skip


class Child:
    """One process with its pipes; two threads drain what it writes, so it never blocks on us."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path | None
    ) -> None:
        self.events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._log = log
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",  # a folder called merger where the user stands must mean nothing
            env=dict(environment),
            start_new_session=True,
        )
        self._end_lock = threading.Lock()
        self._drains = tuple(
            threading.Thread(target=drain, daemon=True)
            for drain in (self._drain_events, self._drain_errors)
        )
        for thread in self._drains:
            thread.start()

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        return self._process.returncode

    def is_alive(self) -> bool:
        """Return whether the process still runs; does not reap it."""
        if self._process.returncode is not None:
            return False
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is None

    def send(self, line: bytes) -> None:
        """Write one order, from a thread: a child that does not read must not hold us up."""
        threading.Thread(target=self._write, args=(line,), daemon=True).start()

    def end(self) -> None:
        """End the process and all of its group; safe to call again and from other threads."""
        with self._end_lock:
            if self._process.returncode is not None:
                return
            try:
                _close(self._process.stdin)
                self._wait(GRACE_SECONDS)
            finally:
                # Not reaped yet, so the number of the group cannot have become another's.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        streams = (self._process.stdout, self._process.stderr)
        for thread, stream in zip(self._drains, streams, strict=True):
            thread.join(timeout=1)
            if not thread.is_alive():  # a stray grandchild may hold the pipe open for ever
                _close(stream)

    def last_lines(self) -> tuple[str, ...]:
        """Return the last lines of its standard error."""
        return tuple(self._tail)[-_SHOWN_LINES:]

    def _wait(self, seconds: float) -> None:
        """Wait for the death without reaping."""
        deadline = time.monotonic() + seconds
        pause = 0.001
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def _write(self, line: bytes) -> None:
        # A dead child is noticed by the end of its output; a pipe closed by `end` by its caller.
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while line:
                line = line[stdin.write(line) or 0 :]

    def _drain_events(self) -> None:
        for line in self._lines(self._process.stdout):
            event = _event(line)
            if event is None:
                self._keep(line)
            else:
                self.events.put(event)
        self.events.put(None)

    def _drain_errors(self) -> None:
        with contextlib.ExitStack() as stack:
            log: IO[bytes] | None = None
            if self._log is not None:
                with contextlib.suppress(OSError):
                    log = stack.enter_context(self._log.open("ab", buffering=0))
            for line in self._lines(self._process.stderr):
                self._keep(line)
                if log is not None:
                    # A full disk must not block the child, which waits for us to read.
                    with contextlib.suppress(OSError):
                        log.write(line)

    def _keep(self, line: bytes) -> None:
        self._tail.append(line[:_SHOWN_BYTES].decode("utf-8", "replace").rstrip())

    @staticmethod
    def _lines(stream: IO[bytes] | None) -> Iterator[bytes]:
        assert stream is not None
        buffered = io.BufferedReader(cast("io.RawIOBase", stream))
        while line := buffered.readline(_EVENT_BYTES):
            yield line


def environment_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a worker's environment: no secret, no network, only our own `merger`."""
    kept = {
        name: value
        for name, value in environment.items()
        if not any(fnmatch.fnmatchcase(name.upper(), pattern) for pattern in _SECRETS)
    }
    kept |= {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    kept["PYTHONPATH"] = os.pathsep.join(_import_folders(environment.get("PYTHONPATH", "")))
    # OpenMP's threads spin while they wait; beside any other load on the machine that made an
    # evaluation five times slower (24 instead of 107 s of processor time, 44 instead of 243 s).
    kept.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return kept


def _import_folders(given: str) -> list[str]:
    """Return the absolute folders of a PYTHONPATH, with that of our source tree in front.

    An installed package is found without help; in front, its folder would hide the library's.
    """
    ours = str(Path(__file__).resolve().parent.parent)
    folders = [folder for folder in given.split(os.pathsep) if Path(folder).is_absolute()]
    is_installed = ours in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return folders if is_installed or ours in folders else [ours, *folders]


def _event(line: bytes) -> dict[str, Any] | None:
    """Return the event on a line of standard output, None if it is something else."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_event = isinstance(event, dict) and isinstance(event.get("event"), str)
    return event if is_event else None


def _close(stream: IO[bytes] | None) -> None:
    with contextlib.suppress(OSError):
        if stream is not None:
            stream.close()
