"""One sync at a time in a repository: `flock`, which no way of dying leaves behind."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from registry.errors import NotNow, RegistryError

_PAUSE_SECONDS = 0.1


@contextmanager
def held(
    path: Path, timeout_seconds: float, *, before_waiting: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Hold the lock; raises NotNow if another process still holds it after `timeout_seconds`.

    Raises RegistryError where no lock can be made.
    """
    with _opened(path) as file:
        end = time.monotonic() + timeout_seconds
        if _try(file.fileno()):
            yield
            return
        before_waiting()
        while not _try(file.fileno()):
            if time.monotonic() >= end:
                msg = f"another sync holds {path.name} since more than {timeout_seconds:g} s"
                raise NotNow(msg, "wait for it, or pass a longer --lock-timeout")
            time.sleep(_PAUSE_SECONDS)
        yield


def _opened(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError as error:
        msg = f"{path}: {(error.strerror or str(error)).lower()}"
        raise RegistryError(msg, "check the folder and its permissions") from error


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
