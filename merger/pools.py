"""Work on several threads, results in the order of the work. Knows no tensor and no method."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

_MOST_WAITING = 16  # pieces per thread: small ones are many


class Sized(Protocol):
    """A piece of work whose result takes `size` bytes."""

    @property
    def size(self) -> int:
        """Bytes of the result."""


Work = TypeVar("Work", bound=Sized)
Made = TypeVar("Made")


CPU = torch.device("cpu")


def threads(count: int, device: torch.device = CPU) -> ThreadPoolExecutor:
    """Return a pool of `count` threads on which a product has the same bits whatever `count` is.

    On a GPU every thread has a stream of its own: one copies while another computes.
    """

    def start() -> None:
        torch.set_num_threads(1)  # one BLAS thread each
        if device.type == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]

    torch.set_num_threads(1)
    return ThreadPoolExecutor(count, "merger", initializer=start)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what this thread asked of it; other threads may use it then."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


@dataclass(frozen=True, slots=True)
class Lane:
    """A pool, its number of threads, and the bytes of results that may wait to be taken."""

    pool: ThreadPoolExecutor
    threads: int
    ahead: int

    def in_order(self, make: Callable[[Work], Made], pieces: Iterable[Work]) -> Iterator[Made]:
        """Yield what is made of the pieces in order; some are made ahead, as `ahead` allows."""
        waiting: deque[tuple[int, Future[Made]]] = deque()
        used = 0
        try:
            for piece in pieces:
                while waiting and (
                    used + piece.size > self.ahead or len(waiting) > _MOST_WAITING * self.threads
                ):
                    size, future = waiting.popleft()
                    yield future.result()
                    used -= size
                waiting.append((piece.size, self.pool.submit(make, piece)))
                used += piece.size
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            for _, future in waiting:
                future.cancel()
