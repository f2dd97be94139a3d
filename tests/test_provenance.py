"""Provenance statements against the field rules of their specifications."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from registry import provenance
from schemas.canonical import digest

RULES = json.loads((Path(__file__).parent / "reference/slsa-provenance-v1.schema.json").read_text())
HEX = {name: name * 64 for name in "abcdef"}
REQUEST = {
    "base": {"kind": "base", "name": "tiny", "digest": f"sha256:{HEX['a']}"},
    "recipe": {
        "method": "linear",
        "terms": [
            {
                "input": {
                    "kind": "adapter",
                    "name": "sql",
                    "version": 2,
                    "digest": f"sha256:{HEX['b']}",
                },
                "weight": -0.5,
            },
            {
                "input": {"kind": "merge", "name": "other", "digest": f"sha256:{HEX['c']}"},
                "weight": 1.0,
            },
        ],
    },
}
FILES = {"config.json": HEX["d"], "model.safetensors": HEX["e"]}
REPORT: dict[str, Any] = {
    "files": {path: {"sha256": one, "md5": "0" * 32, "size": 1} for path, one in FILES.items()},
    "artifact_digest": f"sha256:{HEX['d']}",
    "model_digest": f"sha256:{HEX['e']}",
    "versions": {"torch": "2.9.0"},
    "device_class": "cpu:AVX2:intel",
}


def made(commit: str = "1" * 40, source: str | None = "https://example.org/models") -> Any:
    return provenance.statement(
        REQUEST,
        REPORT,
        report_digest=f"sha256:{HEX['f']}",
        commit=commit,
        source=source,
        times=("2026-03-01T10:00:00Z", "2026-03-01T10:05:00Z"),
    )


def misfit(statement: Any, files: dict[str, str] = FILES) -> str | None:
    return provenance.misfit(json.dumps(statement).encode(), files, digest(REQUEST))


@pytest.mark.parametrize("commit", ["1" * 40, "1" * 40 + "+dirty", "2" * 64, "none"])
@pytest.mark.parametrize(
    "source", [None, "https://example.org/models", "git@example.org:team/models.git", "/srv/ä b"]
)
def test_a_statement_obeys_the_specifications(commit: str, source: str | None) -> None:
    jsonschema.Draft202012Validator(RULES).validate(made(commit, source))


def test_a_statement_names_files_inputs_commit_and_programs() -> None:
    statement = made("1" * 40 + "+dirty")

    definition = statement["predicate"]["buildDefinition"]
    assert {one["name"]: one["digest"]["sha256"] for one in statement["subject"]} == FILES
    assert definition["externalParameters"]["request"] == REQUEST
    assert definition["resolvedDependencies"] == [
        {
            "name": "catalog",
            "digest": {"gitCommit": "1" * 40},
            "uri": "git+https://example.org/models",
            "annotations": {"dirty": True},
        },
        {"name": "base tiny", "digest": {"sha256": HEX["a"]}},
        {"name": "adapter sql@2", "digest": {"sha256": HEX["b"]}},
        {"name": "merge other", "digest": {"sha256": HEX["c"]}},
    ]
    assert statement["predicate"]["runDetails"]["builder"]["version"]["torch"] == "2.9.0"


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("https://example.org/models", "git+https://example.org/models"),
        ("git@example.org:team/models.git", "git+ssh://git@example.org/team/models.git"),
        ("/srv/models", None),
        ("../models", None),
        (None, None),
    ],
)
def test_the_catalog_is_named_by_a_uri_or_by_its_commit_alone(
    source: str | None, uri: str | None
) -> None:
    catalog = made(source=source)["predicate"]["buildDefinition"]["resolvedDependencies"][0]

    assert catalog.get("uri") == uri


def test_a_statement_fits_its_own_artifact_only() -> None:
    statement = made()

    assert misfit(statement) is None
    assert (
        misfit(statement, FILES | {"config.json": HEX["a"]}) == "config.json is another file there"
    )
    assert misfit(statement, FILES | {"more": HEX["a"]}) == "more is another file there"
    statement["predicate"]["buildDefinition"]["externalParameters"]["request"]["base"] = {}
    assert misfit(statement) == "its request has another build key"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"subject": 1}', b"[" * 9000])
def test_what_is_no_statement_is_told_as_such(content: bytes) -> None:
    assert provenance.misfit(content, FILES, digest(REQUEST)) == "no statement of this kind"
