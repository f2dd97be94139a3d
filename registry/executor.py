"""Where workers run: child processes of this machine, as many as there are jobs.

Knows no spec and no plan. An order waits for a free worker; a worker serves one order at a time.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry.gpus import assigned
from registry.worker import Event, Progress, Worker


class Executor:
    """Run orders on child processes, started when the first order comes."""

    def __init__(self, jobs: int, log: Path, gpus: int = 0) -> None:
        """Take how many orders may run at once, and where workers' standard error is kept.

        Of several GPUs each worker sees one: models are shared out among them, never split.
        """
        self.jobs = jobs
        self._workers = tuple(
            Worker(log=log, environment={**os.environ, **assigned(slot, gpus, os.environ)})
            for slot in range(jobs)
        )
        self._free: queue.Queue[Worker] = queue.Queue()
        for worker in self._workers:
            self._free.put(worker)

    @property
    def started(self) -> int:
        """Number of processes started so far; 0 for a sync with nothing to do."""
        return sum(worker.started for worker in self._workers)

    def warm(self, orders: int) -> None:
        """Start the processes for so many orders that are about to come: they import torch now."""
        for worker in self._workers[:orders]:
            worker.start()

    def run(
        self,
        order: Mapping[str, Any],
        on_progress: Callable[[Progress], None],
        on_event: Callable[[Event], None],
    ) -> dict[str, Any]:
        """Return the report of an order; raises as `Worker.run` does."""
        worker = self._free.get()
        try:
            return worker.run(order, on_progress, on_event=on_event)
        finally:
            self._free.put(worker)

    def renew(self) -> None:
        """End the processes that wait for an order: the next one finds a process of its own."""
        for worker in self._workers:
            worker.renew()

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.close()
