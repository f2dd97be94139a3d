"""pattern_share: does a regular expression of Python match anywhere in the answer. Knows no model.

Python cannot stop a search that backtracks for ever, so the searches run in a bare interpreter
whose processor time the kernel limits. It takes 20 ms, once per task.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence

from merger.evaluate.suite import Task

_SECONDS = 10  # of processor time for all answers of a task; a plain pattern takes microseconds

_SEARCH = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({_SECONDS}, {_SECONDS}))
order = json.load(sys.stdin)
pattern = re.compile(order["pattern"])
json.dump([pattern.search(answer) is not None for answer in order["answers"]], sys.stdout)
"""


def prepare(task: Task) -> Callable[[Sequence[str]], list[float]]:
    """Return the scorer of pattern_share; the mean of its scores is the share that matches."""
    pattern = task.text_option("pattern")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        msg = f"options.pattern: expected a regular expression of Python, {error}"
        raise task.fault(msg) from error

    def score(answers: Sequence[str]) -> list[float]:
        found = _search(pattern, answers)
        if found is None:
            msg = f"options.pattern: searching took more than {_SECONDS} s of processor time"
            raise task.fault(msg)
        return [float(is_found) for is_found in found]

    return score


def _search(pattern: str, answers: Sequence[str]) -> list[bool] | None:
    """Return for each answer whether the pattern is in it, None if that took too long."""
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _SEARCH],
        input=json.dumps({"pattern": pattern, "answers": list(answers)}),
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode < 0:  # SIGXCPU or SIGKILL
        return None
    found: list[bool] = json.loads(finished.stdout)
    return found
