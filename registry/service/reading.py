"""What only a child process reads: catalogs. Ours asks, the child answers with one JSON document.

A catalog of ten thousand models takes hundreds of megabytes and seconds to read, and is somebody
else's text; neither is for a process that idles for months. `python -m registry.service.reading
QUESTION ROOT …` is such a child. Knows no HTTP and no reconciler.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from registry.errors import InvalidCatalog, NotNow, RegistryError
from registry.service import access

_SECONDS = 1800
_SHOWN_PROBLEMS = 20


class Invalid(RegistryError):
    """The catalog has problems; the message has the first of them."""


def ask(question: str, root: Path, *arguments: str) -> Any:
    """Return a child's answer. Raises Invalid, or RegistryError as the child did."""
    command = [sys.executable, "-m", __name__, question, str(root), *arguments]
    # A folder called registry, where the service was started or in the clone, means nothing.
    environment = {**access.without_secrets(os.environ), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        msg = f"reading the catalog: no answer within {_SECONDS} s"
        raise NotNow(msg) from None
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        msg = f"reading the catalog ended with code {done.returncode}: {''.join(last)}"
        raise RuntimeError(msg)
    told = json.loads(done.stdout)
    if "invalid" in told:
        raise Invalid(told["invalid"])
    if "error" in told:
        raise RegistryError(told["error"], told["hint"])
    return told["answer"]


def main() -> None:
    """Answer the question of the command line on standard output."""
    question, root, *arguments = sys.argv[1:]
    try:
        told = {"answer": _ANSWERS[question](Path(root), *arguments)}
    except InvalidCatalog as error:
        told = {"invalid": _problems(error)}
    except RegistryError as error:
        told = {"error": error.message, "hint": error.hint}
    json.dump(_finite(told), sys.stdout, allow_nan=False)


def _problems(error: InvalidCatalog) -> str:
    from registry import report

    return f"{error.message}\n{report.problems_text(error.problems[:_SHOWN_PROBLEMS])}"


def _finite(data: Any) -> Any:
    """Return plain data without NaN and infinities, which JSON does not have."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


def _judge(root: Path, commit: str) -> None:
    """Raise InvalidCatalog if the catalog at a commit, which is not checked out, is no good."""
    from registry import catalog, git
    from registry.errors import Problem
    from registry.index import Index
    from registry.tree import RevisionTree

    index = Index(root)
    loaded = catalog.load(RevisionTree(root, commit), index)
    index.save()
    links = [
        Problem(path, 0, 0, "", "expected a regular file, found a tracked symlink or submodule")
        for path, (mode, _) in git.tree_files(root, commit, "catalog").items()
        if mode in (git.SYMLINK, git.SUBMODULE)
    ]
    if links:
        raise InvalidCatalog(links, loaded.files)


def _view(root: Path, with_push: str) -> dict[str, Any]:
    """Return the plan, what `registry status` shows, and which merges each model is made of."""
    from registry import report
    from registry.cli.session import open_session
    from registry.plan import Options

    session = open_session(root)
    plan = session.plan(Options(), with_push=with_push == "push")
    _, live = session.status()
    upstream = {model: list(merges) for model, merges in session.upstream.items() if merges}
    return {"plan": plan.as_data(), "rows": report.status_rows(plan, live), "upstream": upstream}


def _page(module: str, question: str) -> Callable[..., Any]:
    """Return a function of a module that only the child imports."""

    def answer(root: Path, *arguments: str) -> Any:
        found = import_module(f"registry.service.{module}")
        return getattr(found, question)(root, *arguments)

    return answer


_ANSWERS: Mapping[str, Callable[..., Any]] = {
    "judge": _judge,
    "view": _view,
    "impact": _page("contents", "impact"),
    "lineage": _page("details", "lineage"),
    "recorded": _page("details", "recorded"),
    "model": _page("details", "model"),
    "ingredient": _page("contents", "ingredient"),
    "ingredients": _page("contents", "everything"),
    "difference": _page("past", "difference"),
    "plots": _page("drawn", "plots"),
}


if __name__ == "__main__":
    main()
