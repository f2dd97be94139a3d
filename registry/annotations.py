"""Problems as code hosts show them on the lines of a pull request. Pure text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256

from registry.errors import Problem


def github(problems: Iterable[Problem]) -> str:
    """Return GitHub's workflow commands, one line per problem; a step shows ten of each kind.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    """
    return "\n".join(_command(one) for one in problems)


def _command(one: Problem) -> str:
    facts = [("file", one.file), ("title", one.field or "registry validate")]
    facts += [(name, str(n)) for name, n in (("line", one.line), ("col", one.column)) if n]
    properties = ",".join(f"{name}={_property(value)}" for name, value in facts)
    message = f"{one.message}\nhint: {one.hint}" if one.hint else one.message
    return f"::{'warning' if one.is_warning else 'error'} {properties}::{_data(message)}"


def _data(text: str) -> str:
    # Unescaped, a line break would let a file of the catalog give commands of its own.
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def gitlab(problems: Iterable[Problem]) -> str:
    """Return GitLab's code quality report, to be kept as an artifact of that name.

    https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
    """
    return json.dumps([_issue(one) for one in problems], indent=2, ensure_ascii=False)


def _issue(one: Problem) -> dict[str, object]:
    text = ": ".join(part for part in (one.field, one.message) if part)
    # The line is left out: what moves within its file is the same problem.
    identity = json.dumps([one.file, one.field, one.message]).encode()
    return {
        "description": f"{text} (hint: {one.hint})" if one.hint else text,
        "check_name": "registry validate",
        "fingerprint": sha256(identity).hexdigest(),
        "severity": "minor" if one.is_warning else "major",
        "location": {"path": one.file, "lines": {"begin": max(one.line, 1)}},
    }
