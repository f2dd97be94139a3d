"""Answers of children about one view, kept as long as that is the view; small. Asks nobody."""

from __future__ import annotations

import json
import zlib
from typing import Any

from registry.service.view import View

_MOST = 256
"""Answers that are kept. Of 10,000 models an adapter's is a megabyte: a tenth of it when packed."""


class Answers:
    """What was answered about the view of the moment, by question."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._about: tuple[View | None, dict[tuple[str, ...], bytes]] = (None, {})

    def find(self, view: View | None, question: tuple[str, ...]) -> bytes | None:
        """Return a kept answer, packed; None if there is none about this view."""
        about, known = self._about
        return known.get(question) if about is view else None

    def keep(self, view: View | None, question: tuple[str, ...], answer: Any) -> bytes:
        """Keep an answer and return it packed; those about another view are forgotten."""
        if self._about[0] is not view:
            self._about = (view, {})
        known = self._about[1]
        while len(known) >= _MOST:
            known.pop(next(iter(known)))
        known[question] = zlib.compress(json.dumps(answer).encode(), 1)
        return known[question]


def unpacked(answer: bytes) -> Any:
    """Return a packed answer as it was."""
    return json.loads(zlib.decompress(answer))
