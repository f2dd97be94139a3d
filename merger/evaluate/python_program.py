"""The program in an answer to a programming task. Pure text: nothing of an answer is parsed or run.

As people who answer with code do, models answer in one of three ways, and each gives a program:

    the body goes on     the first line is indented: the prompt and what follows it, up to the
                         first line that is not (Chen et al. 2021, section 2.1, stop at some of
                         these: class, def, #, if, print; here any text that leaves the function)
    code in a fence      the first block that defines the function
    code alone           the answer from its first line that looks like code; if it does not define
                         the function either, the first block

What does not define the function is a body and follows the prompt. What does follows the part of
the prompt before its definition: imports and helpers that the task gives. Where a program ends,
and prose or half a line begins, is left to who compiles it.
"""

from __future__ import annotations

import ast
import re

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_LEFT = re.compile(r"\n(?=[^\s)\]}])")
_START = re.compile(
    r"^(?:from\s+\S+\s+import\b|import\s+\w|@\w|(?:async\s+)?def\s+\w|class\s+\w|\w+\s*=\s*\S)",
    re.MULTILINE,
)
_INDENTED = re.compile(r"(?:[ \t]*\n)*[ \t]+(?!```)\S")


def program(prompt: str, answer: str, entry_point: str) -> str:
    """Return the program of an answer, which should define `entry_point`."""
    defined = re.compile(rf"^(?:async\s+)?(?:def|class)\s+{entry_point}\b", re.MULTILINE)
    head, stub = _given(prompt, defined)
    if stub and _INDENTED.match(answer):
        return head + stub + _LEFT.split(answer, maxsplit=1)[0] + "\n"
    code = _code(answer, defined)
    return head + ("" if defined.search(code) else stub) + code


def _given(prompt: str, defined: re.Pattern[str]) -> tuple[str, str]:
    """Return what of a prompt is Python: before the function's definition, and from there on.

    It may stand in a fence; prose before the definition is left out.
    """
    code = _code(prompt, defined)
    found = defined.search(code)
    if found is None:
        return "", ""
    head = code[: found.start()]
    return (head if _is_python(head) else ""), code[found.start() :]


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def _code(text: str, defined: re.Pattern[str]) -> str:
    blocks: list[str] = _FENCE.findall(text)
    for block in blocks:
        if defined.search(block):
            return block
    if not defined.search(text):
        return (blocks or [text])[0]
    start = _START.search(text)
    assert start is not None, "a definition looks like code"
    return text[start.start() :]
