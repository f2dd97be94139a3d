"""One background lane: what must be done in order, beside the builds. Knows no task's meaning.

A thread that is started by the first task. It is a daemon, so that a call that hangs cannot keep
the process alive; whoever ends the lane waits for it a little, and nothing is made to last after
that.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

END_SECONDS = 3.0
"""How long the end of the lane waits for the task that runs: most take less than a second."""

Made = TypeVar("Made")


class Lane:
    """Carry out tasks one after the other, in the order in which they came."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._tasks = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lasting = threading.Lock()
        self.is_abandoned = False

    def submit(self, task: Callable[[], Made]) -> Future[Made]:
        """Take a task; its result, or what it raised, is told by the future."""
        future: Future[Made] = Future()
        self._tasks.put((future, task))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="lane", daemon=True)
            self._thread.start()
        return future

    @contextlib.contextmanager
    def lasting(self) -> Iterator[None]:
        """Guard what a task makes to last: it is whole before the lane is abandoned, or never is.

        Raises CancelledError after that.
        """
        with self._lasting:
            if self.is_abandoned:
                raise CancelledError
            yield

    def abandon(self) -> None:
        """Drop what waits; the task that runs makes nothing to last any more."""
        with self._lasting:
            self.is_abandoned = True

    def end(self) -> None:
        """Abandon what is left, if anything, and wait a little for the task that runs."""
        self.abandon()
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join(END_SECONDS)

    def _work(self) -> None:
        while (taken := self._tasks.get()) is not None:
            future, task = taken
            if self.is_abandoned:
                future.cancel()
                continue
            try:
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001 whoever waits is told
                future.set_exception(error)
