"""GPUs for several workers at once: how many there are, and which worker sees which.

Asks the driver, never torch, which takes seconds to import. Knows no order.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable by which a process is shown some GPUs only; a user's own choice is left alone."""

_DRIVER = Path("/proc/driver/nvidia/gpus")
_TOOL = ("nvidia-smi", "-L")
_TOOL_SECONDS = 10  # it may load the driver first


def count(driver: Path = _DRIVER, tool: tuple[str, ...] = _TOOL) -> int:
    """Return the number of NVIDIA GPUs of this machine; 0 where nobody can tell."""
    try:
        return sum(1 for _ in driver.iterdir())
    except OSError:
        pass
    try:
        ran = subprocess.run(
            tool, capture_output=True, text=True, check=False, timeout=_TOOL_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in ran.stdout.splitlines())


def assigned(slot: int, gpus: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a worker's environment needs beside the given one: one GPU, by turns.

    Nothing with fewer than two GPUs, or where the environment chooses already.
    """
    if gpus < 2 or VISIBLE in environment:
        return {}
    return {VISIBLE: str(slot % gpus)}
