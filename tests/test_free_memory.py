"""A quarter of what is free, by the kernel's figures and those of control groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from merger import memory

MEMINFO = "MemTotal:       24684084 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n"
GROUP = "sys/fs/cgroup/service/one"


def default_of(root: Path, files: Mapping[str, str]) -> int | None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return memory.default_bytes(root)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"proc/meminfo": MEMINFO}, 20_000_000 * 1024),
        # A group of version 2, whose parent is narrower; the page cache counts as free.
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/service/one\n",
                f"{GROUP}/memory.max": "max\n",
                f"{GROUP}/memory.current": "5000\n",
                "sys/fs/cgroup/service/memory.max": "1000000\n",
                "sys/fs/cgroup/service/memory.current": "700000\n",
                "sys/fs/cgroup/service/memory.stat": "anon 1\ninactive_file 100000\nfile 2\n",
            },
            400_000,
        ),
        # In a container the group that we are said to be in is the root of what we see.
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "12:cpu,memory:/docker/abc\n11:cpuset:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "800000",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "600000",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
            },
            200_000,
        ),
        # No limit is a huge number in version 1.
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "12:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "600000",
            },
            20_000_000 * 1024,
        ),
    ],
)
def test_the_narrowest_limit_counts(tmp_path: Path, files: Mapping[str, str], free: int) -> None:
    assert default_of(tmp_path, files) == free // 4


def test_a_full_group_leaves_a_byte_and_an_unknown_system_no_limit(tmp_path: Path) -> None:
    full = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1000",
        "sys/fs/cgroup/memory.current": "2000",
    }

    assert default_of(tmp_path / "unknown", {}) is None
    assert default_of(tmp_path / "full", full) == 1


def test_this_machine_has_some() -> None:
    assert memory.default_bytes() or not Path("/proc/meminfo").exists()
