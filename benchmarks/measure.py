"""What one process costs: CPU seconds, wall seconds, its own memory, bytes written. Linux only.

CPU seconds are user and system time of the process and the children it waited for. Memory is the
largest sum of RssAnon and RssShmem that a look every 20 ms at /proc found in any one process of
the tree: pages of mapped files, which the kernel may drop at any time, are not in it, and a peak
shorter than 20 ms may be missed. Bytes written are what the kernel counted as dirtied for storage.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

_SECONDS_BETWEEN_LOOKS = 0.02
_LAST_CHARACTERS = 3000


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one process; `told` is what it said of itself, by name."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    written_bytes: int
    told: Mapping[str, float]

    def as_data(self) -> dict[str, Any]:
        """Return plain data, which `Sample(**data)` takes."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several values, the least and the largest of them."""

    median: float
    least: float
    largest: float
    count: int


class CommandFailed(Exception):
    """A measured command ended with another code than 0."""


def spread(values: Sequence[float]) -> Spread:
    """Return median, least and largest of one value or more."""
    return Spread(median(values), min(values), max(values), len(values))


def run(
    command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None
) -> tuple[Sample, str]:
    """Run a command to its end; return what it cost and its standard output.

    Raises CommandFailed with the last lines of what it said.
    """
    texts = [str(part) for part in command]
    environment = {**os.environ, **(env or {})}
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        written = _written_bytes()
        started = time.monotonic()
        process = subprocess.Popen(
            texts, stdin=subprocess.DEVNULL, stdout=told, stderr=said, cwd=cwd, env=environment
        )
        with _Watch(process.pid) as watch:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            told.seek(0)
            said.seek(0)
            text = (told.read() + said.read()).decode("utf-8", "replace")[-_LAST_CHARACTERS:]
            raise CommandFailed(f"{' '.join(texts)} ended with {process.returncode}: {text}")
        told.seek(0)
        output = told.read().decode("utf-8")
    cpu = usage.ru_utime + usage.ru_stime
    return Sample(cpu, seconds, watch.peak_bytes, _written_bytes() - written, {}), output


class _Watch:
    """Looks at a process and its children from a thread of its own for as long as it is entered."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(_SECONDS_BETWEEN_LOOKS):
            self.peak_bytes = max(self.peak_bytes, _largest_in_tree(self._pid))


def _written_bytes() -> int:
    """Return what this process and all its children that ended made the kernel write."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def _largest_in_tree(pid: int) -> int:
    found = _own_bytes(pid)
    for child in _children(pid):
        found = max(found, _largest_in_tree(child))
    return found


def _own_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:  # it has just ended
        return 0
    wanted = ("RssAnon:", "RssShmem:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))


def _children(pid: int) -> list[int]:
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = (task / "children").read_text("ascii")
            found += [int(child) for child in children.split()]
    except OSError:
        pass
    return found
