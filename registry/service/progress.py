"""How far a running `registry sync` is, from the lines that it writes while it works. Pure.

    both-skills  build
    both-skills  build  37 of 120 tensors

Whatever else a log holds is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

_LINE = re.compile(
    r"(?P<model>\S[^\n]{0,200}?)  (?P<stage>[a-z][a-z ]{0,39}?)"
    r"(?:  (?P<done>\d{1,18}) of (?P<total>\d{1,18}) (?P<unit>[\w ]{1,40}))?"
)
_LONGEST = 4096  # of a line that is waited for


@dataclass(frozen=True, slots=True)
class Progress:
    """What was begun so far, and what is done now: `done` of `total` things called `unit`.

    `model` is what the stage is of, which may be an ingredient that is fetched; without a `total`
    it is not known how far the stage is.
    """

    begun: Collection[str] = frozenset()
    model: str = ""
    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    rest: bytes = b""
    """The beginning of a line whose end was not heard yet."""

    def after(self, heard: bytes) -> Progress:
        """Return the progress after some more bytes of the log."""
        *lines, rest = (self.rest + heard).split(b"\n")
        found = self
        for line in lines:
            found = found.after_line(line.decode(errors="replace").rstrip())
        return replace(found, rest=rest[-_LONGEST:])

    def after_line(self, line: str) -> Progress:
        """Return the progress after a line of the log."""
        match = _LINE.fullmatch(line)
        if match is None:
            return self
        model, stage, done, total, unit = match.groups()
        begun = self.begun if model in self.begun else {*self.begun, model}
        return Progress(begun, model, stage, int(done or 0), int(total or 0), unit or "", self.rest)
