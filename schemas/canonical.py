"""Canonical JSON (RFC 8785) and the digest of a value. Knows no value's meaning."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 bytes of plain data.

    Raises ValueError for what has none: a non-finite number, a whole number beyond 2**53 - 1,
    a key that is not text.
    """
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """Return `sha256:<hex>` of the canonical JSON of plain data."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()
