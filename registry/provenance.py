"""Provenance of an artifact: an in-toto Statement v1 with a SLSA Provenance v1 predicate. Pure.

It says which files came from which build request, which inputs by digest, which commit, when and
by which programs; it says nothing of gates or of what was published. Not signed: that it is the
statement of that build, the journal says, which names its digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from schemas.canonical import digest
from schemas.expression import reference

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://merge-registry.example/build-request/v1"
"""What `externalParameters.request` is: the build request of `schemas/`, format 1."""
BUILDER = "https://merge-registry.example/merger/v1"


def statement(
    request: Mapping[str, Any],
    report: Mapping[str, Any],
    *,
    report_digest: str | None,
    commit: str,
    source: str | None,
    times: tuple[str, str],
) -> dict[str, Any]:
    """Return the statement of a build from its request and report.

    `commit` is that of the catalog, with `+dirty` if files differed from it, `source` where the
    catalog is fetched from, `times` when the build started and ended, as RFC 3339 has them.
    """
    import uuid
    from importlib.metadata import version  # both slow to import, and needed after builds only

    return {
        "_type": STATEMENT,
        "subject": [
            {"name": path, "digest": {"sha256": file["sha256"]}}
            for path, file in sorted(report["files"].items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"request": dict(request)},
                "internalParameters": {"deviceClass": report["device_class"]},
                "resolvedDependencies": [*_catalog(commit, source), *_inputs(request)],
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {
                        "merge-registry": version("merge-registry"),
                        **{name: str(one) for name, one in report["versions"].items()},
                    },
                },
                "metadata": {
                    "invocationId": uuid.uuid4().urn,
                    "startedOn": times[0],
                    "finishedOn": times[1],
                },
                "byproducts": list(_byproducts(report, report_digest)),
            },
        },
    }


def _catalog(commit: str, source: str | None) -> Iterator[dict[str, Any]]:
    """Yield the catalog's commit, unless there is none yet."""
    identity, _, is_dirty = commit.partition("+")
    if identity == "none":
        return
    one: dict[str, Any] = {"name": "catalog", "digest": {"gitCommit": identity}}
    if source and (uri := _uri(source)):
        one["uri"] = uri
    if is_dirty:
        one["annotations"] = {"dirty": True}
    yield one


_RESERVED = ":/?#[]@!$&'()*+,;=%~"


def _uri(source: str) -> str | None:
    """Return a Git address as a URI; None for a folder, which names nothing elsewhere."""
    host, _, path = source.partition(":")
    if (
        path and "/" not in host and not path.startswith("//")
    ):  # as in git@example.org:team/models.git
        source = f"ssh://{host}/{path.lstrip('/')}"
    return f"git+{quote(source, safe=_RESERVED)}" if "://" in source else None


def _inputs(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the base and every input of a term, each once."""
    inputs = [request["base"], *(term["input"] for term in request["recipe"]["terms"])]
    told = set()
    for one in inputs:
        name = f"{one['kind']} {reference(one)}"
        if name not in told:
            told.add(name)
            # A tree digest: sha256 over the canonical listing of the input's files.
            yield {"name": name, "digest": {"sha256": one["digest"].removeprefix("sha256:")}}


def _byproducts(report: Mapping[str, Any], report_digest: str | None) -> Iterator[dict[str, Any]]:
    """Yield what stands for all files together, and the build report."""
    for name in ("artifact", "model"):
        hexadecimal = report[f"{name}_digest"].removeprefix("sha256:")
        yield {
            "name": f"{name} digest",
            "digest": {"sha256": hexadecimal},
            "annotations": {"of": "canonical JSON of its files' sizes and sha256"},
        }
    if report_digest:
        hexadecimal = report_digest.removeprefix("sha256:")
        yield {"name": "build-report.json", "digest": {"sha256": hexadecimal}}


def misfit(content: bytes, files: Mapping[str, str], key: str) -> str | None:
    """Return in what the statement in a file is not that of an artifact; None if it fits.

    `files` are the artifact's, hex of sha256 by path; `key` is the build key.
    """
    try:
        data = json.loads(content)
        subjects = {one["name"]: one["digest"]["sha256"] for one in data["subject"]}
        request = data["predicate"]["buildDefinition"]["externalParameters"]["request"]
        found = (data["_type"], data["predicateType"], digest(request))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return "no statement of this kind"
    if found != (STATEMENT, PREDICATE, key):
        return "its request has another build key"
    for path in sorted(files.keys() | subjects.keys()):
        if files.get(path) != subjects.get(path):
            return f"{path} is another file there"
    return None
