"""Two calls of the C library that Python has no name for; where it lacks them nothing happens."""

from __future__ import annotations

import ctypes
import errno
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_REUSED = 32 << 20  # the most that glibc takes from its heaps on a machine of 64 bits
_KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed, for the rest of the process.

    Blocks and pieces of tensors come and go by the thousand, all of a few sizes. glibc gives their
    pages back to the kernel, which clears every one of them again before its next use; that costs
    as much as a merge's arithmetic.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_REUSED)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def preallocate(descriptor: int, size: int) -> None:
    """Reserve the blocks of a file of `size` bytes; raises OSError when the disk has no room.

    Python's posix_fallocate would write the file where its file system cannot reserve.
    """
    library = ctypes.CDLL(None, use_errno=True)
    fallocate = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if fallocate is None or size == 0:
        return
    if fallocate(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)) != 0:
        number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(number, os.strerror(number))
