"""Many documents read on all cores: this process reads its share, children of it the others.

Only what is valid comes back; whoever asked reads the rest again, so that problems are found in one
place and in one order. Knows no catalog. `python -m registry.readers` is such a child: it takes one
question on standard input and ends with the answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from registry import documents, schema

if TYPE_CHECKING:
    from subprocess import Popen

SHARE = 250
"""How many documents make a process worth its start: they take as long to read, 0.1 s."""

Wanted = tuple[str, str]
"""The kind that a document must be of, and its path from the root."""


def read(root: Path, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """Return the data of the valid ones among the documents, by path."""
    processes = max(1, min(_cores(), len(wanted) // SHARE))
    # Neighbours are alike, so every process takes some of each kind.
    shares = [wanted[start::processes] for start in range(processes)]
    with ExitStack() as stack:
        children = [stack.enter_context(_started(root, share)) for share in shares[1:]]
        found = dict(_valid(root, shares[0]))
        for child, answer in children:
            found |= _answered(child, answer)
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _valid(root: Path, wanted: Sequence[Wanted]) -> Iterator[tuple[str, Any]]:
    for kind, path in wanted:
        try:
            document, problems = documents.parse((root / path).read_bytes(), path)
        except OSError:
            continue
        if document is not None and not problems and not schema.validate(document, kind):
            yield path, document.data


@contextmanager
def _started(root: Path, share: Sequence[Wanted]) -> Iterator[tuple[Popen[bytes], IO[bytes]]]:
    """Start a child on its share; it ends with the block, whatever happens."""
    import subprocess
    import tempfile

    from registry.worker_process import environment_of

    # Files, not pipes: neither side ever waits for the other to take what it has to say.
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as answer:
        question.write(json.dumps([str(root), share]).encode())
        question.seek(0)
        with subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=question,
            stdout=answer,
            stderr=subprocess.DEVNULL,
            env=environment_of(os.environ),
        ) as child:
            try:
                yield child, answer
            finally:
                child.kill()


def _answered(child: Popen[bytes], answer: IO[bytes]) -> dict[str, Any]:
    """Return what a child found; nothing if it came to an end too early."""
    if child.wait() != 0:
        return {}
    answer.seek(0)
    found: dict[str, Any] = json.load(answer)
    return found


def main() -> None:
    """Answer the question on standard input."""
    root, wanted = json.load(sys.stdin)
    json.dump(dict(_valid(Path(root), wanted)), sys.stdout)


if __name__ == "__main__":
    main()
