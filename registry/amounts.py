"""Amounts as people read them. Knows nothing else."""

from __future__ import annotations


def size(count: float) -> str:
    """Return bytes: `12 B`, `1.23 GB`; KB, MB, GB and TB are powers of 1000, as in specs."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
