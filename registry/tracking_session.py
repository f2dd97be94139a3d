"""One conversation with MLflow: a bounded wait, one kind of failure, none after the first.

Knows no call of MLflow's; they are handed in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from registry.errors import NotNow
from registry.tracking_place import without_secrets

PROMPT_SECONDS = 0.25
"""What an answer may take without counting as waiting: a call takes 0.01 s to 0.05 s."""

_MEANINGS = (
    ("Connection refused", "connection refused"),
    ("NameResolutionError", "no host of that name"),
    ("TimeoutError", "no answer in time"),
    ("timed out", "no answer in time"),
)
"""What the several lines of an HTTP library's error come down to."""

_log = logging.getLogger(__name__)


class Session:
    """Calls MLflow as long as it answers, and waits for it no longer than the deadline in all."""

    def __init__(self, uri: str, deadline_seconds: float) -> None:
        """Take the address for messages, and how long to wait over all calls."""
        self._place = without_secrets(uri)
        self._seconds_left = deadline_seconds
        self._trouble: str | None = None

    def ask(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return what a call answers; raise NotNow for any failure, and ever after."""
        if self._seconds_left <= 0 and self._trouble is None:
            self._trouble = f"MLflow at {self._place} took too long to answer"
        if self._trouble is not None:
            raise NotNow(self._trouble, "the next registry sync tries again")
        started = time.monotonic()
        try:
            return call(*args, **options)
        except Exception as error:
            # Whatever it is, it must not fail a build; the debugging log has the traceback.
            _log.debug("MLflow: %s failed", call, exc_info=True)
            self._trouble = f"MLflow at {self._place}: {_sentence(error)}"
            hint = "check MLFLOW_TRACKING_URI and the server; the next registry sync tries again"
            raise NotNow(self._trouble, hint) from error
        finally:
            self._count(time.monotonic() - started)

    def stop(self) -> None:
        """Let no further call begin; may be asked from another thread."""
        self._trouble = "stopped"

    def work(self, call: Callable[..., Any], *args: Any) -> Any:
        """Return what a call answers that works on this machine and waits for nobody."""
        left = self._seconds_left
        answer = self.ask(call, *args)
        self._seconds_left = left
        return answer

    def _count(self, seconds: float) -> None:
        # A prompt answer is work, which grows with the builds, not waiting.
        if seconds > PROMPT_SECONDS:
            self._seconds_left -= seconds


def _sentence(error: BaseException) -> str:
    text = without_secrets(str(error)).strip()
    for sign, meaning in _MEANINGS:
        if sign in text:
            return meaning
    return (text.splitlines() or [type(error).__name__])[0][:300]
