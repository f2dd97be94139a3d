"""The engine alone: `python -m merger`. Work orders or options in, events out.

Without a command it reads one work order (JSON) per line from standard input until that ends, and
writes one event (JSON) per line to standard output. The end of standard input ends the process at
once, in the middle of whatever it does: so it never outlives the program that started it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from merger import libc, worker

_DESCRIPTION = """\
Merge language models: a build request in, an artifact and a report out.

Without a command: a worker. Reads one work order per line from standard input,

  {"format_version": 1, "task": "build", "request": {...}, "inputs": {"sha256:...": "/folder"},
   "output": "/empty/folder", "device": "auto", "threads": null, "memory_bytes": null}

and writes one event per line to standard output: started, progress, and last report or failed
(kind input, memory, disk or bug). The end of standard input ends it at once.

With the command `build`: one request from a file, folders as options.
"""

_BUILD_DESCRIPTION = """\
Build one artifact: a folder that transformers and vLLM open, with recipe.json and README.md.

Events go to standard output, the last is the report with the digest of every file and the figures
of the merge. Exit code 0 after a report, 1 after a failure. Inputs are trusted to be what their
digests say; `registry verify` checks them.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
    events = _claim_stdout()
    libc.keep_freed_memory()
    # Of numpy, before anything imports it: its threads wait for work at full speed for a tenth of a
    # second, and nobody here gives them any.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        if options.command == "build":
            return 0 if worker.carry_out(_order(options), _emitter(events)) else 1
        return _serve(events)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("merger", description=_DESCRIPTION, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    build = commands.add_parser(
        "build", help="build one artifact", description=_BUILD_DESCRIPTION, formatter_class=raw
    )
    build.add_argument("--request", required=True, type=Path, help="build request (recipe.json)")
    build.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="DIGEST=DIR",
        help="folder of the base or an operand, by its digest in the request; may be repeated",
    )
    build.add_argument("--output", required=True, type=Path, help="absent or empty folder")
    build.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    build.add_argument("--threads", type=int, help="default: all processors; changes no bit")
    limit = "soft limit of what is in flight; default: a quarter of what is free; changes no bit"
    build.add_argument("--memory-bytes", type=int, help=limit)
    return parser


def _order(options: argparse.Namespace) -> dict[str, Any]:
    folders = dict(_input(text) for text in options.input)
    try:
        request = json.loads(options.request.read_text("utf-8"))
    except (OSError, ValueError) as error:
        _refuse_usage(f"--request: expected a JSON file: {error}")
    return {
        "format_version": 1,
        "task": "build",
        "request": request,
        "inputs": folders,
        "output": str(options.output),
        "device": options.device,
        "threads": options.threads,
        "memory_bytes": options.memory_bytes,
    }


def _input(text: str) -> tuple[str, str]:
    digest, equals, folder = text.partition("=")
    if not equals or not digest.startswith("sha256:"):
        _refuse_usage(f"--input: expected sha256:HEX=DIR, found {text}")
    return digest, folder


def _refuse_usage(message: str) -> None:
    sys.stderr.write(f"merger: {message}\n")
    raise SystemExit(64)


def _serve(events: TextIO) -> int:
    """Carry out the orders of standard input until it ends."""
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()
    is_busy = threading.Event()
    threading.Thread(target=_read_orders, args=(orders, is_busy), daemon=True).start()
    write = _emitter(events)

    def emit(event: Mapping[str, Any]) -> None:
        # Before it is written: who has read an order's last event may end us, and that is no kill.
        if event["event"] in ("report", "failed"):
            is_busy.clear()
        write(event)

    worker.warm_up()
    while True:
        line = orders.get()
        is_busy.set()
        try:
            order = json.loads(line)
        except ValueError:
            order = None
        worker.carry_out(order, emit)


def _read_orders(orders: queue.SimpleQueue[str], is_busy: threading.Event) -> None:
    """Hand on the lines of standard input; at its end, end the process and its children at once."""
    for line in sys.stdin:
        if line.strip():
            orders.put(line)
    # The main thread may be inside a kernel for minutes: no exception and no handler reaches it.
    if (is_busy.is_set() or not orders.empty()) and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def _claim_stdout() -> TextIO:
    """Return standard output for events alone; whatever else is printed goes to standard error."""
    sys.stdout.flush()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _emitter(events: TextIO) -> worker.Emit:
    def emit(event: Mapping[str, Any]) -> None:
        events.write(json.dumps(event, allow_nan=False, ensure_ascii=False) + "\n")
        events.flush()

    return emit


if __name__ == "__main__":
    sys.exit(main())
