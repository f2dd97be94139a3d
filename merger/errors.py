"""What stops a request, and the `failed` event that tells it. Knows no tensor and no file.

MergerError
├── InputError     the request or one of its inputs is wrong; a person can fix it
└── DiskError      the artifact does not fit on the disk

MemoryError, torch's out-of-memory errors and OSError ENOSPC are told as what they are; everything
else is our bug.
"""

from __future__ import annotations

import errno
from typing import Any


class MergerError(Exception):
    """A request cannot be carried out, for a reason outside this program."""


class InputError(MergerError):
    """The request or an input is wrong; the three names are empty where they do not apply."""

    def __init__(self, why: str, *, tensor: str = "", term: str = "", field: str = "") -> None:
        """Say what is wrong; `field` is a path in the request: `recipe.parameters.density`."""
        subject = ": ".join(part for part in (field or term, tensor) if part)
        super().__init__(f"{subject}: {why}" if subject else why)
        self.why = why
        self.tensor = tensor
        self.term = term
        self.field = field


class DiskError(MergerError):
    """The artifact does not fit on the disk."""

    def __init__(self, bytes_needed: int, bytes_free: int) -> None:
        """Tell how much the artifact takes and how much is free."""
        super().__init__(f"the artifact needs {bytes_needed} bytes, {bytes_free} are free")
        self.bytes_needed = bytes_needed


def as_event(error: BaseException) -> dict[str, Any]:
    """Return the `failed` event of an error."""
    event: dict[str, Any] = {
        "event": "failed",
        "kind": kind_of(error),
        "message": str(error) or type(error).__name__,
        "tensor": getattr(error, "tensor", ""),
        "term": getattr(error, "term", ""),
        "field": getattr(error, "field", ""),
    }
    if isinstance(error, DiskError):
        event["bytes_needed"] = error.bytes_needed
    return event


def kind_of(error: BaseException) -> str:
    """Return `input`, `memory`, `disk` or `bug`."""
    if isinstance(error, InputError):
        return "input"
    if isinstance(error, DiskError):
        return "disk"
    if isinstance(error, OSError):
        return "disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "bug"
    return "memory" if is_out_of_memory(error) else "bug"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the CPU or a GPU.

    torch's CPU allocator raises a plain RuntimeError, so its text has to do.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)
