"""How much memory is free, for the machine and its control groups, and how much is ours. Linux."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_SHARE = 4  # what is in flight takes a quarter of what is free; the rest is for everybody else

# (folder below /sys/fs/cgroup, limit, usage, what of the usage the kernel would give back)
_V2 = ("", "memory.max", "memory.current", "inactive_file")
_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def default_bytes(root: Path = Path("/")) -> int | None:
    """Return a quarter of the memory that is free, None where nothing says how much there is."""
    free = min(_free(root), default=None)
    return None if free is None else max(1, free // _SHARE)


def resident_bytes(root: Path = Path("/")) -> int:
    """Return the resident set of this process now, 0 where nothing says it."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", _text(root / "proc/self/status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _free(root: Path) -> Iterator[int]:
    available = re.search(r"^MemAvailable: +(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if available:
        yield int(available[1]) * 1024
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, place = line.split(":", 2)
        if number == "0":
            yield from _left(root / "sys/fs/cgroup", place, _V2)
        elif "memory" in controllers.split(","):
            yield from _left(root / "sys/fs/cgroup", place, _V1)


def _left(mount: Path, place: str, names: tuple[str, str, str, str]) -> Iterator[int]:
    """Yield what each group from ours up to the root leaves; in a container ours is the root."""
    below, limit, usage, reclaimable = names
    group = Path(place.lstrip("/"))
    for one in (group, *group.parents):
        folder = mount / below / one
        allowed, used = _text(folder / limit).strip(), _text(folder / usage).strip()
        if allowed.isdecimal() and used.isdecimal():
            cached = re.search(
                rf"^{reclaimable} (\d+)", _text(folder / "memory.stat"), re.MULTILINE
            )
            yield max(0, int(allowed) - int(used) + (int(cached[1]) if cached else 0))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
