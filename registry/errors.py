"""Everything that can go wrong, as types with exit codes; and `Problem`, one finding in one file.

    RegistryError              1   a person can fix it; message, and the cure in `hint`
    ├── UsageError            64   an unknown model, revision, file or option
    ├── InvalidCatalog         1   carries all problems of all files
    ├── BuildFailed            1   a worker refused a request or died
    ├── VerificationFailed     1   bytes are not what their digest says
    └── NotNow                75   lock, disk or network: the same command may work later

    Interrupted          128 + n   a signal ends the command in order

Anything else that is raised is our bug: exit 70 and a traceback in a log file. Knows nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

EXIT_CHANGES_PENDING = 2
EXIT_BUG = 70


class RegistryError(Exception):
    """Something that a person can fix."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        """Take what is wrong (lower case, no full stop) and how to cure it."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RegistryError):
    """The command line names something that does not exist."""

    exit_code = 64


class BuildFailed(RegistryError):
    """A worker refused a request or died."""


class OutOfTime(BuildFailed):
    """A worker took longer than it was given."""


class VerificationFailed(RegistryError):
    """Bytes are not what their digest says."""


class NotNow(RegistryError):
    """Lock, disk or network: nothing is wrong with the catalog, try again later."""

    exit_code = 75


class Interrupted(BaseException):
    """A signal ends the command in order. No Exception: it may rise from within any line.

    Whoever makes the best of a failure, we or a library, would otherwise take it for one.
    """

    def __init__(self, signal_number: int) -> None:
        """Keep the signal, whose number makes the exit code."""
        super().__init__("interrupted")
        self.signal_number = signal_number


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One finding about one place in one file; lines and columns count from 1, 0 means none."""

    file: str
    line: int
    column: int
    field: str
    message: str
    hint: str = ""
    is_warning: bool = False

    def text(self) -> str:
        """Return `file:line:col: field: message`, with the hint on a second line."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        head = ": ".join(part for part in (place, self.field, self.message) if part)
        kind = "warning: " if self.is_warning else ""
        return f"{kind}{head}" + (f"\n  hint: {self.hint}" if self.hint else "")


class InvalidCatalog(RegistryError):
    """The catalog is refused as a whole."""

    def __init__(self, problems: Iterable[Problem], files: int) -> None:
        """Keep the problems in order of place, and how many files were read."""
        self.problems = tuple(sorted(problems))
        self.files = files
        broken = len({problem.file for problem in self.problems})
        noun = "problem" if len(self.problems) == 1 else "problems"
        of = "file" if files == 1 else "files"
        super().__init__(f"{len(self.problems)} {noun} in {broken} of {files} {of}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean X` for the nearest known word, or nothing."""
    import difflib  # 10 ms, needed only when something is wrong

    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}" if near else ""
