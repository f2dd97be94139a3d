"""The least a merge can cost: every input read once, the output hashed and written once.

    python -m benchmarks.floor OUTPUT INPUT…

One process, one thread, plain buffered I/O in blocks of 1 MiB, sha256 and md5 as the store needs
them. The first input is written as the output. Prints the CPU seconds of each part as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20


def copy(inputs: Sequence[Path], output: Path) -> dict[str, float]:
    """Read the inputs, write the first; return CPU seconds and bytes by part."""
    seconds: defaultdict[str, float] = defaultdict(float)
    sizes: Counter[str] = Counter()
    hashes = {"sha256": hashlib.sha256(), "md5": hashlib.md5()}
    buffer = bytearray(_BLOCK_BYTES)
    view = memoryview(buffer)

    def timed(part: str, act: Callable[[Any], Any], given: Any) -> Any:
        started = time.thread_time()
        result = act(given)
        seconds[part] += time.thread_time() - started
        return result

    with output.open("wb") as written:
        for number, path in enumerate(inputs):
            with path.open("rb") as file:
                while size := timed("read", file.readinto, buffer):
                    sizes["read"] += size
                    if number == 0:
                        sizes["written"] += size
                        for name, one in hashes.items():
                            timed(name, one.update, view[:size])
                        timed("write", written.write, view[:size])
    return {f"{part}_seconds": value for part, value in seconds.items()} | {
        f"{part}_bytes": float(value) for part, value in sizes.items()
    }


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    print(json.dumps(copy(paths[1:], paths[0])))
