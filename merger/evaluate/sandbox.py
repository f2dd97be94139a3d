"""Whether a program passes its tests, found out in a sandbox. Knows no task and no answer.

What the sandbox is stands in `sandbox_script`, which runs in an interpreter of its own with an
empty environment. It takes 50 ms of processor time besides what the program takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("sandbox_script.py")

# Sets have one order in every run; the script clears the environment before the program sees it.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}


class NoSandbox(Exception):
    """The kernel denies what a sandbox is made of; the message says which call."""


@dataclass(frozen=True, slots=True)
class Program:
    """Python that defines `entry_point`, and Python that defines `check(candidate)`.

    A program counts up to the first statement of the module with a fault in its syntax.
    """

    program: str
    test: str
    entry_point: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of processor time, of which the clock may show four times as many, and memory."""

    seconds: int
    memory_mb: int


def passes(program: Program, limits: Limits) -> bool:
    """Return whether check() returns; a program beyond its limits fails. Raises NoSandbox."""
    finished = subprocess.run(
        [sys.executable, "-P", "-s", "-S", "-B", "-X", "utf8", str(_SCRIPT)],
        input=json.dumps({**asdict(program), **asdict(limits)}),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=_ENVIRONMENT,
    )
    word, _, reason = finished.stdout.partition(": ")
    if word == "refused":
        raise NoSandbox(reason)
    if finished.returncode != 0:
        msg = f"the sandbox ended with exit code {finished.returncode}: {finished.stderr[-2000:]}"
        raise RuntimeError(msg)
    return word == "passed"


def check(limits: Limits) -> None:
    """Raise NoSandbox unless a program that does nothing passes within the limits."""
    nothing = Program("def nothing(): pass", "def check(candidate): candidate()", "nothing")
    if not passes(nothing, limits):
        msg = f"a program that does nothing fails within {limits.seconds} s, {limits.memory_mb} MB"
        raise NoSandbox(msg)
