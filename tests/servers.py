"""MLflow's server as a process of its own, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import tracking
from registry.tracking import Pages


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def mlflow_server(folder: Path, uri: str) -> Iterator[Pages]:
    """Serve a store from a folder, in which the server's log is kept."""
    port = free_port()
    pages = tracking.ui_command(folder, uri, port)
    log = folder / "log"
    with log.open("wb") as file:
        environment = {**os.environ, **(pages.environment or {})}
        process = subprocess.Popen(pages.argv, stdout=file, stderr=file, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield pages
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
