"""Blocks of a console in the documentation: run in one shell, what is printed compared with the page.

A line `…` stands for any lines, a `…` inside a line for any text. A block is fenced as `console`;
lines that begin with `$ ` are commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "-- end of command --"


@dataclass(frozen=True)
class Command:
    """A command of a page and the lines that it is to print, on either stream."""

    text: str
    expected: tuple[str, ...]


def commands(page: str) -> list[Command]:
    """Return the commands of all console blocks of a page, in order."""
    found = []
    for block in _BLOCK.findall(page):
        first, *rest = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not first, f"expected a command first, found {first!r}"
        for one in rest:
            text, *lines = one.splitlines()
            found.append(Command(text, tuple(lines)))
    return found


def run(page: str, folder: Path, environment: Mapping[str, str]) -> list[tuple[Command, str, str]]:
    """Run a page's commands in one bash, and return each with what it printed and a pattern."""
    asked = commands(page)
    script = "".join(f"{one.text}\necho '{_MARK}' $?\n" for one in asked)
    tools = Path(sys.executable).parent
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=folder,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=400,
    )
    printed = re.split(rf"^{_MARK} \d+\n", done.stdout, flags=re.MULTILINE)
    return [(one, out, pattern(one.expected)) for one, out in zip(asked, printed, strict=False)]


def pattern(expected: tuple[str, ...]) -> str:
    """Return the pattern of a command's output."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"
        for line in expected
    ]
    return "".join(lines)
