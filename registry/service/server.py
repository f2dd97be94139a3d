"""The process: one port, the reconciler on a thread, HTTP on another, and an end in order.

Signals reach the main thread, which does nothing but wait for them: see `registry.__main__`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import uvicorn

from registry.errors import RegistryError
from registry.service import api
from registry.service.access import Secrets
from registry.service.guard import Service
from registry.service.reconciler import Reconciler

_IDLE_SECONDS = 10.0  # for a git that does not answer; a sync is waited for to its end
_ANSWER_SECONDS = 5


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; RegistryError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        msg = f"cannot listen on {host}, port {port}: {why.lower()}"
        raise RegistryError(msg, "pass another --host or --port") from error


def run(
    reconciler: Reconciler,
    listening: socket.socket,
    secrets: Secrets,
    version: str,
    tell: Callable[[str], object],
) -> None:
    """Serve until a signal comes, which arrives as Interrupted; ends in order whatever ends it."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def started(action: Callable[[], object]) -> threading.Thread:
        def act() -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001  told by the main thread
                failures.append(error)
            ended.set()

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread

    server = _server(Service(reconciler, secrets, version))
    answering = started(lambda: asyncio.run(server.serve(sockets=[listening])))
    working = started(reconciler.run)
    host, port = listening.getsockname()[:2]
    tell(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        ended.wait()
    finally:
        reconciler.drain()
        working.join(_IDLE_SECONDS)
        while working.is_alive() and reconciler.is_working:
            working.join(1)
        server.should_exit = True
        answering.join(2 * _ANSWER_SECONDS)
    if failures:
        raise failures[0]


def _server(service: Service) -> uvicorn.Server:
    config = uvicorn.Config(
        api.create(service),
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_ANSWER_SECONDS,
    )
    return uvicorn.Server(config)
