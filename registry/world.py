"""What a sync works with: the loaded catalog, the store, the worker, the tracker, the settings.

Chosen by the command line and handed to `reconcile`; holds them together and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from registry.errors import NotNow
from registry.executor import Executor
from registry.index import Index
from registry.journal import Journal
from registry.lane import Lane
from registry.request import Declaration
from registry.spec import Catalog
from registry.store import Store
from registry.tracked import RunLog
from registry.tracking import Tracker
from registry.worker import Event, Progress


class Observer(Protocol):
    """Who watches a sync: a terminal with a bar, or a log with lines."""

    def stage(self, model: str, text: str) -> None:
        """Hear that work on a model enters a stage."""

    def progress(self, model: str, progress: Progress) -> None:
        """Hear how far a stage has come."""

    def warn(self, message: str) -> None:
        """Hear what did not work and fails nothing."""


_NEXT_SYNC = "the next sync logs what is waiting"


@dataclass(slots=True)
class World:
    """The collaborators of one command in one repository."""

    root: Path
    catalog: Catalog
    declared: Mapping[str, Declaration]
    index: Index
    store: Store
    observer: Observer
    executor: Executor
    make_tracker: Callable[[], Tracker]
    commit: str
    journal: Journal
    device: str = "auto"
    push: bool = False
    # Of each worker; None lets it take a quarter of what is free.
    memory_bytes: int | None = None
    # Held by whoever changes files, store or MLflow; given up while a worker computes.
    turn: Lock = field(default_factory=Lock)
    # The one thread that talks to MLflow, and writes the records that come after it.
    lane: Lane = field(default_factory=Lane)
    _tracker: Tracker | None = None
    _tracking_failed: bool = False

    def run(
        self,
        model: str,
        order: Mapping[str, Any],
        on_event: Callable[[Event], None] = lambda _: None,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Return the report of a worker; the turn is given to other jobs meanwhile."""

        def on_progress(progress: Progress) -> None:
            self.observer.progress(model, progress)

        self.turn.release()
        try:
            return self.executor.run(order, on_progress, on_event, timeout_seconds)
        finally:
            self.turn.acquire()

    def connect(self) -> None:
        """Have the lane import MLflow and open the store, which takes seconds, while builds run."""
        self.lane.submit(lambda: self.track(lambda tracker: tracker.store_id()))

    def log_run(self, log: RunLog) -> None:
        """Log what is no build and wait for it; a warning is all that a failure is."""
        later = "run the command again to log it"
        self.lane.submit(lambda: self.track(lambda tracker: tracker.log_run(log), later)).result()

    def track(self, what: Callable[[Tracker], Any], later: str = _NEXT_SYNC) -> Any:
        """Return what MLflow answers, or None after one warning: it never fails a sync.

        For tasks of the lane. After the first failure the rest is left to the next sync.
        """
        if self._tracking_failed:
            return None
        try:
            if self._tracker is None:
                self._tracker = self.make_tracker()
            return what(self._tracker)
        except NotNow as error:
            if self.lane.is_abandoned:
                raise CancelledError from error
            self._tracking_failed = True
            self.observer.warn(f"MLflow: {error.message}; {later}")
            return None

    def close(self) -> None:
        """End the lane; what it could not finish, the next sync does."""
        self.lane.abandon()
        if self._tracker is not None:
            self._tracker.stop()
        self.lane.end()
