"""Unquoted scalars by the core schema of YAML 1.2: words, whole numbers, decimal fractions.

`no` is text, `017` is 17, a date is text; numbers too long for anybody become infinite, which the
schemas refuse. Knows no document.
"""

from __future__ import annotations

import math
import re

_WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True)
_WORDS |= dict.fromkeys(("false", "False", "FALSE"), False)
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"(?P<sign>[-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Python neither reads nor writes whole numbers of more than 4300 digits; ours end at 2**53 - 1.
_LONGEST_INTEGER = 400
_LARGEST_INTEGER = 2**1000


def scalar(text: str) -> str | int | float | bool | None:
    """Return the value of an unquoted scalar by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        sign = special["sign"]
        return math.nan if sign is None else math.copysign(math.inf, -1 if sign == "-" else 1)
    return text


def _integer(text: str) -> int | float:
    infinite = math.copysign(math.inf, -1 if text.startswith("-") else 1)
    if len(text) > _LONGEST_INTEGER:
        return infinite
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    value = int(text[2:] if base != 10 else text, base)
    return value if abs(value) < _LARGEST_INTEGER else infinite
