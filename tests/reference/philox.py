"""Philox4x64-10 and our masks once more, in plain Python from the definitions. Slow on purpose."""

from __future__ import annotations

import hashlib
import json

WORD = 2**64
_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10: Salmon et al. 2011, section 3.3 and table 2."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(_MULTIPLIERS[0] * c0, WORD)
        high1, low1 = divmod(_MULTIPLIERS[1] * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) % WORD, (k1 + _WEYL[1]) % WORD
    return [c0, c1, c2, c3]


def word(key: tuple[int, int], index: int) -> int:
    """The 32-bit word of an element, from the definition alone."""
    call = philox([index // 8 + 1, 0, 0, 0], list(key))
    return (call[index % 8 // 2] >> (32 * (index % 2))) % 2**32


def key_of(seed: int, operand: str, tensor: str) -> tuple[int, int]:
    """The key of a mask: the first 128 bits of the SHA-256 of canonical JSON."""
    fields = {"digest": operand, "seed": seed, "tensor": tensor}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    raw = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big")
